/* A machine whose wall clock is wrong, for one process: CLOCK_REALTIME is off by the seconds that
 * stand in the file $WRONG_CLOCK; the clocks that nobody can set are left alone. Loaded with
 * LD_PRELOAD. (libfaketime 0.9.10 breaks clock_nanosleep when it leaves CLOCK_MONOTONIC alone.) */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long long off(void)
{
    const char *path = getenv("WRONG_CLOCK");
    char text[32];
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = file < 0 ? -1 : read(file, text, sizeof text - 1);

    if (file >= 0)
        close(file);
    if (n <= 0)
        return 0;
    text[n] = 0;
    return atoll(text);
}

int clock_gettime(clockid_t which, struct timespec *to)
{
    static int (*real)(clockid_t, struct timespec *);
    int failed;

    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    failed = real(which, to);
    if (!failed && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
        to->tv_sec += off();
    return failed;
}

int gettimeofday(struct timeval *to, void *zone)
{
    struct timespec now;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    to->tv_sec = now.tv_sec;
    to->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *to)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (to)
        *to = now.tv_sec;
    return now.tv_sec;
}
