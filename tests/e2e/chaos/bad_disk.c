/* A disk that fails, for one process: while the file $BAD_DISK_WHEN exists, the calls named in it
 * (one of: read write sync) on files whose path contains $BAD_DISK_PATH fail with EIO.
 * Built by tests/e2e/chaos/bad_disk.py, loaded with LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int bad(int fd, const char *what)
{
    static __thread int inside;
    const char *when = getenv("BAD_DISK_WHEN"), *path = getenv("BAD_DISK_PATH");
    char name[64], target[4096], said[64];
    ssize_t n;
    int file, hit = 0;

    if (inside || !when || !path || access(when, F_OK) != 0)
        return 0;
    inside = 1;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    n = readlink(name, target, sizeof target - 1);
    if (n > 0) {
        target[n] = 0;
        if (strstr(target, path) && (file = open(when, O_RDONLY)) >= 0) {
            ssize_t (*real_read)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");
            n = real_read(file, said, sizeof said - 1);
            close(file);
            said[n > 0 ? n : 0] = 0;
            hit = strstr(said, what) != NULL;
        }
    }
    inside = 0;
    if (hit)
        errno = EIO;
    return hit;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)

ssize_t read(int fd, void *to, size_t n)
{ REAL(read); return bad(fd, "read") ? -1 : real(fd, to, n); }
ssize_t pread(int fd, void *to, size_t n, off_t at)
{ REAL(pread); return bad(fd, "read") ? -1 : real(fd, to, n, at); }
ssize_t pread64(int fd, void *to, size_t n, off64_t at)
{ REAL(pread64); return bad(fd, "read") ? -1 : real(fd, to, n, at); }
ssize_t write(int fd, const void *from, size_t n)
{ REAL(write); return bad(fd, "write") ? -1 : real(fd, from, n); }
ssize_t pwrite(int fd, const void *from, size_t n, off_t at)
{ REAL(pwrite); return bad(fd, "write") ? -1 : real(fd, from, n, at); }
ssize_t pwrite64(int fd, const void *from, size_t n, off64_t at)
{ REAL(pwrite64); return bad(fd, "write") ? -1 : real(fd, from, n, at); }
int fsync(int fd)
{ REAL(fsync); return bad(fd, "sync") ? -1 : real(fd); }
int fdatasync(int fd)
{ REAL(fdatasync); return bad(fd, "sync") ? -1 : real(fd); }
