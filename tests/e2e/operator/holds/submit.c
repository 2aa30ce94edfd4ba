/* Holds a thread for 5 to 50 ms right after one in HOLD_ONE_IN of its submits to io_uring, as a busy
 * machine may do it. Loaded by LD_PRELOAD. Each thread has its own random numbers, from HOLD_SEED. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static __thread unsigned state;

static unsigned next(void)
{
    state = state * 1103515245u + 12345u;
    return state >> 16;
}

static void hold(void)
{
    const char *seed = getenv("HOLD_SEED"), *one_in = getenv("HOLD_ONE_IN");
    if (!seed || !one_in)
        return;
    if (!state)
        state = (unsigned)atol(seed) | 1;
    if (next() % (unsigned)atoi(one_in))
        return;
    struct timespec pause = {0, (5 + next() % 46) * 1000000L};
    nanosleep(&pause, NULL);
}

long syscall(long number, ...)
{
    static long (*real)(long, ...);
    va_list list;
    long a[6];
    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    long result = real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number == __NR_io_uring_enter) {
        int error = errno;
        hold();
        errno = error;
    }
    return result;
}
