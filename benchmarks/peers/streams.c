/* How fast threads read memory: each adds up its share of a buffer, as `streams` pieces read side by side. */

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

typedef uint64_t vector __attribute__((vector_size(32)));

enum { LINE = 64, AHEAD = 2048, MOST = 64 };

struct share {
    const char *data;
    size_t bytes;
    int streams;
    pthread_barrier_t *start;
    uint64_t sum;
};

/* Always with a constant number of streams, so that sums stay in registers. */
static inline __attribute__((always_inline)) uint64_t added(const char *data, size_t bytes, int streams) {
    const size_t piece = bytes / streams / LINE * LINE;
    vector sums[8] = {0};
    for (size_t at = 0; at < piece; at += LINE) {
#pragma GCC unroll 8
        for (int number = 0; number < streams; number++) {
            const char *from = data + number * piece + at;
            __builtin_prefetch(from + AHEAD);
            sums[number] += ((const vector *)from)[0] + ((const vector *)from)[1];
        }
    }
    uint64_t sum = 0;
    for (int number = 0; number < streams; number++)
        for (int lane = 0; lane < 4; lane++) sum += sums[number][lane];
    return sum;
}

static void *add(void *argument) {
    struct share *share = argument;
    pthread_barrier_wait(share->start);
    switch (share->streams) {
    case 1: share->sum = added(share->data, share->bytes, 1); break;
    case 2: share->sum = added(share->data, share->bytes, 2); break;
    case 4: share->sum = added(share->data, share->bytes, 4); break;
    default: share->sum = added(share->data, share->bytes, 8);
    }
    return NULL;
}

/* Seconds for all of `bytes` (aligned to 64); -1 where threads cannot be started.  At most 64 threads; 1, 2, 4 or 8 streams. */
double read_seconds(const char *data, size_t bytes, int threads, int streams) {
    pthread_t made[MOST];
    struct share shares[MOST];
    pthread_barrier_t start;
    struct timespec before, after;
    if (threads < 1 || threads > MOST) return -1;
    const size_t each = bytes / threads / LINE * LINE;
    pthread_barrier_init(&start, NULL, threads + 1);
    for (int number = 0; number < threads; number++) {
        shares[number] = (struct share){data + number * each, each, streams, &start, 0};
        if (pthread_create(&made[number], NULL, add, &shares[number])) return -1;
    }
    clock_gettime(CLOCK_MONOTONIC, &before);
    pthread_barrier_wait(&start);
    for (int number = 0; number < threads; number++) pthread_join(made[number], NULL);
    clock_gettime(CLOCK_MONOTONIC, &after);
    pthread_barrier_destroy(&start);
    return (after.tv_sec - before.tv_sec) + 1e-9 * (after.tv_nsec - before.tv_nsec);
}
