/* A disk that is slower than the machine's: preloaded into PostgreSQL, each flush of a file takes longer by PAYONCE_BENCH_FLUSH_US
   microseconds. The file is flushed first, as it would be without this. Two flushes at once do not wait for each other. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void wait_longer(void) {
    const char *text = getenv("PAYONCE_BENCH_FLUSH_US");
    long us = text ? atol(text) : 0;
    struct timespec left = {us / 1000000, us % 1000000 * 1000};
    int error = errno;
    while (nanosleep(&left, &left) == -1 && errno == EINTR) {
    }
    errno = error;
}

int fdatasync(int file) {
    static int (*next)(int);
    if (!next) {
        next = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    }
    int result = next(file);
    wait_longer();
    return result;
}

int fsync(int file) {
    static int (*next)(int);
    if (!next) {
        next = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    }
    int result = next(file);
    wait_longer();
    return result;
}
