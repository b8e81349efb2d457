"""The ramdisk agent: one program, standard library plus blake3 and cryptography."""
