/* A relay's part for a load generator that cannot do it: adds option 82 (RFC 3046) with a remote
   id (the switch) and a circuit id (its port) that follow from the client's MAC, and passes the
   packet on. Replies go from the server to giaddr, past it.

   usage: dhcp_relay BIND-ADDRESS BIND-PORT SERVER-ADDRESS PORTS */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 32, SIZE = 2048, OPTIONS = 240, PORTS_EACH = 48 };

static size_t end_of_options(const unsigned char *data, size_t size) {
    size_t at = OPTIONS;
    while (at < size && data[at] != 255)
        at += data[at] == 0 ? 1 : at + 1 < size ? 2u + data[at + 1] : 1;
    return at < size ? at : 0;
}

static size_t add_option_82(unsigned char *data, size_t size, unsigned ports) {
    size_t at = size > OPTIONS ? end_of_options(data, size) : 0;
    if (!at || at + 64 > SIZE)
        return 0;
    unsigned mac = data[31] << 16 | data[32] << 8 | data[33];
    unsigned port = mac % ports;
    char circuit[24], remote[24];
    int c = snprintf(circuit, sizeof circuit, "eth%u", port % PORTS_EACH);
    int r = snprintf(remote, sizeof remote, "sw%u", port / PORTS_EACH);
    data[at++] = 82;
    data[at++] = (unsigned char)(c + r + 4);
    data[at++] = 1;
    data[at++] = (unsigned char)c;
    memcpy(data + at, circuit, c);
    at += c;
    data[at++] = 2;
    data[at++] = (unsigned char)r;
    memcpy(data + at, remote, r);
    at += r;
    data[at++] = 255;
    return at;
}

static int bound(const char *address, int port) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    int buffer = 4 << 20, sock = socket(AF_INET, SOCK_DGRAM, 0);
    inet_pton(AF_INET, address, &here.sin_addr);
    setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
    if (bind(sock, (struct sockaddr *)&here, sizeof here)) {
        perror("bind");
        exit(1);
    }
    return sock;
}

int main(int argc, char **argv) {
    if (argc != 5)
        return 2;
    int in = bound(argv[1], atoi(argv[2])), out = socket(AF_INET, SOCK_DGRAM, 0);
    unsigned ports = atoi(argv[4]);
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(67)};
    inet_pton(AF_INET, argv[3], &server.sin_addr);
    static unsigned char data[BATCH][SIZE];
    struct iovec parts[BATCH];
    struct mmsghdr got[BATCH], sent[BATCH];
    for (;;) {
        memset(got, 0, sizeof got);
        memset(sent, 0, sizeof sent);
        for (int n = 0; n < BATCH; n++) {
            parts[n] = (struct iovec){data[n], SIZE - 64};
            got[n].msg_hdr.msg_iov = &parts[n];
            got[n].msg_hdr.msg_iovlen = 1;
        }
        int count = recvmmsg(in, got, BATCH, MSG_WAITFORONE, NULL), whole = 0;
        for (int n = 0; n < count; n++) {
            parts[n].iov_len = add_option_82(data[n], got[n].msg_len, ports);
            if (!parts[n].iov_len)
                continue;
            sent[whole].msg_hdr.msg_iov = &parts[n];
            sent[whole].msg_hdr.msg_iovlen = 1;
            sent[whole].msg_hdr.msg_name = &server;
            sent[whole++].msg_hdr.msg_namelen = sizeof server;
        }
        for (int n = 0; n < whole;) {
            int passed = sendmmsg(out, sent + n, whole - n, 0);
            n += passed > 0 ? passed : 1;
        }
    }
}
