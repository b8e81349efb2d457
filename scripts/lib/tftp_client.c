/* A reading TFTP client for scripts/bench/tftp: RFC 1350, 2347, 2348, 7440; octet mode.
 *
 * tftp_client ADDRESS PORT NAME BLKSIZE WINDOW CLIENTS LOSS SEED
 *
 * CLIENTS processes read the file at once. Of the packets that arrive LOSS (0..1) are thrown away
 * unseen, as a lossy link would. One line for each: bytes, seconds, FNV-1a of the content, gaps
 * told, time-outs; "failed REASON" when the file did not come. It acknowledges as RFC 7440 section
 * 4 says: a full window, the last block, what it has at the first packet out of order of a window,
 * and again after 1 s of silence. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { RRQ = 1, DATA = 3, ACK = 4, ERR = 5, OACK = 6, QUIET_MS = 1000, TRIES = 20 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static uint64_t state;
static double chance(void) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (state >> 11) / 9007199254740992.0;
}

static int granted(const unsigned char *p, ssize_t n, const char *name, int otherwise) {
    const char *at = (const char *)p + 2, *end = (const char *)p + n;
    while (at < end) {
        const char *value = at + strlen(at) + 1;
        if (value >= end) break;
        if (!strcasecmp(at, name)) return atoi(value);
        at = value + strlen(value) + 1;
    }
    return otherwise;
}

static int read_file(char **a) {
    int block = atoi(a[4]), window = atoi(a[5]), size = 512, most = 1;
    double loss = atof(a[7]);
    static unsigned char p[65536 + 1], request[600];
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(a[2]))};
    inet_pton(AF_INET, a[1], &server.sin_addr);
    int s = socket(AF_INET, SOCK_DGRAM, 0), buffer = 4 << 20, n;
    setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
    request[1] = RRQ;
    n = 2 + sprintf((char *)request + 2, "%s%coctet%cblksize%c%d%cwindowsize%c%d", a[3], 0, 0, 0,
                    block, 0, 0, window) + 1;
    double began = now();
    uint64_t hash = 14695981039346656037ULL, expected = 1, bytes = 0;
    unsigned got = 0, told = 0, gaps = 0, quiet = 0, tries = 0;
    int connected = 0;
    sendto(s, request, n, 0, (struct sockaddr *)&server, sizeof server);
    for (;;) {
        struct pollfd wait = {.fd = s, .events = POLLIN};
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        ssize_t r = recvfrom(s, p, sizeof p - 1, MSG_DONTWAIT, (struct sockaddr *)&from, &length);
        unsigned char ack[4] = {0, ACK};
        int say = 0, over = 0;
        if (r < 0) {
            if (errno != EAGAIN) return printf("failed %s\n", strerror(errno)), 1;
            if (poll(&wait, 1, QUIET_MS) > 0) continue;
            if (++tries > TRIES) return printf("failed silence\n"), 1;
            quiet++, got = told = 0, say = 1;
            if (!connected) {
                sendto(s, request, n, 0, (struct sockaddr *)&server, sizeof server);
                continue;
            }
        } else {
            if (r < 4 || (loss > 0 && chance() < loss)) continue;
            if (!connected) connect(s, (struct sockaddr *)&from, length), connected = 1;
            p[r] = 0;
            if (p[1] == ERR) return printf("failed %s\n", p + 4), 1;
            if (p[1] == OACK && expected == 1) {
                size = granted(p, r, "blksize", 512), most = granted(p, r, "windowsize", 1), say = 1;
            } else if (p[1] == DATA) {
                unsigned number = p[2] << 8 | p[3];
                if (number == (expected & 0xFFFF)) {
                    for (unsigned char *c = p + 4; c < p + r; c += 64) hash = (hash ^ *c) * 1099511628211ULL;
                    bytes += r - 4, expected++, got++, told = tries = 0;
                    over = r - 4 < size, say = over || got == (unsigned)most;
                } else if (!told && most > 1) {
                    told = say = 1, gaps++;
                }
            }
            if (say) got = 0;
        }
        if (say) {
            ack[2] = (expected - 1) >> 8, ack[3] = expected - 1;
            send(s, ack, 4, 0);
        }
        if (over) break;
    }
    printf("%llu %.6f %016llx %u %u\n", (unsigned long long)bytes, now() - began,
           (unsigned long long)hash, gaps, quiet);
    return 0;
}

int main(int count, char **a) {
    if (count != 9) return 2;
    int clients = atoi(a[6]), failed = 0, status;
    for (int c = 0; c < clients; c++)
        if (!fork()) {
            state = (strtoull(a[8], 0, 10) + c) * 0x9E3779B97F4A7C15ULL | 1;
            int code = read_file(a);
            fflush(stdout);
            _exit(code);
        }
    while (wait(&status) > 0) failed |= status;
    return failed != 0;
}
