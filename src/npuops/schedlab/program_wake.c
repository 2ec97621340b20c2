/* Threads that wake threads, as in schbench: messengers post work to workers, each of which works a short while; and
 * beside them processes that never sleep.
 *
 * Request k is of worker k mod WORKERS, whose one messenger is k mod MESSENGERS: so the number of posts is all that
 * the two share. Its instant in RESULTS is when the worker began with it.
 */
#define _GNU_SOURCE
#include "program_load.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 64, MEBIBYTE = 1 << 20, SOME = 100000 };

struct worker { _Atomic uint32_t posted; };

static struct worker all[MOST];
static int64_t messengers, workers, iterations, start;
static struct span arrivals, results;
static _Atomic uint32_t gone;   /* whether it began */

static void sleep_on(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void rouse(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void *message(void *argument)
{
    int64_t me = (int64_t)(intptr_t)argument;
    prctl(PR_SET_NAME, "messenger");
    while (!gone)
        sleep_on(&gone, 0);
    for (int64_t k = me; k < arrivals.count; k += messengers) {
        nap_until(start + arrivals.at[k]);
        all[k % workers].posted++;
        rouse(&all[k % workers].posted);
    }
    return NULL;
}

static void *work(void *argument)
{
    int64_t me = (int64_t)(intptr_t)argument;
    uint32_t begun = 0, seen;
    prctl(PR_SET_NAME, "waked");
    for (int64_t k = me; k < arrivals.count; k += workers, begun++) {
        while ((seen = all[me].posted) == begun)
            sleep_on(&all[me].posted, seen);
        results.at[1 + k] = now_ns() - start;
        compute(iterations);
    }
    return NULL;
}

int wake(char **words)
{
    pthread_t threads[2 * MOST];
    messengers = number(words[0]);
    workers = number(words[1]);
    iterations = number(words[2]);
    arrivals = map_file(words[3], 0);
    results = map_file(words[4], 1);
    if (messengers < 1 || workers < messengers || workers > MOST || workers % messengers || results.count != arrivals.count + 1)
        refuse("as many workers for each messenger, at most 64, and results for all arrivals");
    for (int64_t i = 0; i < messengers + workers; i++) {
        int64_t which = i < messengers ? i : i - messengers;
        if (pthread_create(&threads[i], NULL, i < messengers ? message : work, (void *)(intptr_t)which))
            give_up("thread");
    }
    prctl(PR_SET_NAME, "messengers");
    start = await_go();
    gone = 1;
    rouse(&gone);
    for (int64_t i = 0; i < messengers + workers; i++)
        pthread_join(threads[i], NULL);
    return 0;
}

static _Noreturn void scan_for_ever(int64_t *count)
{
    static volatile unsigned char memory[MEBIBYTE];
    uint32_t x = (uint32_t)getpid();
    for (;;) {
        for (int i = 0; i < SOME; i++) {
            x = x * 1664525u + 1013904223u;
            memory[(x >> 8) & (MEBIBYTE - 1)]++;
        }
        ++*count;
    }
}

int crew(char **words)
{
    int64_t count = number(words[0]);
    pid_t parent = getpid();
    prctl(PR_SET_NAME, "hogs");
    results = map_file(words[1], 1);
    if (count < 1 || count > results.count)
        refuse("a word for each of the crew is needed");
    for (int64_t i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid < 0)
            give_up("fork");
        if (!pid) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            prctl(PR_SET_NAME, "hog");
            if (getppid() != parent)
                _exit(4);
            scan_for_ever(&results.at[i]);
        }
    }
    while (wait(NULL) > 0)
        ;
    return 4;   /* it does not end by itself */
}
