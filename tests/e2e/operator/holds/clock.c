/* Holds a thread for 5 to 50 ms right after one in HOLD_ONE_IN of its reads of the clock, as a busy machine
 * may do it. A shard reads the clock right before it sleeps and right after. Loaded by LD_PRELOAD. Each thread
 * has its own random numbers, from HOLD_SEED. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

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

int clock_gettime(clockid_t clock, struct timespec *time)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    int error = errno;
    hold();
    errno = error;
    return result;
}
