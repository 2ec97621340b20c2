/* A player of a mix: what it does, phase by phase, and what it writes down. */
#define _GNU_SOURCE
#include "load.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 4096, MEBIBYTE = 1 << 20 };

const char *schedule;
char *results;
const struct head *head;
static const struct player *me;
static const struct act *acts, *act;
static const int64_t *starts, *arrivals;
struct stage *stage;
static struct result *mine;
static struct tally *tallies, last;
static int64_t *done, *bins;
static int64_t begin, phase, phase_end, next_arrival;
static volatile unsigned char *memory;
static uint32_t chance = 12345;
static volatile uint64_t sink;

static int64_t read_clock(clockid_t which)
{
    struct timespec t;
    clock_gettime(which, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t now(void) { return read_clock(CLOCK_MONOTONIC); }

static void nap(int64_t until)
{
    struct timespec t = { until / 1000000000, until % 1000000000 };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

static void compute(int64_t count)
{
    uint64_t x = sink | 1;
    for (int64_t i = 0; i < count; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x));   /* no closed form, please */
    }
    sink = x;
}

static void scan(int64_t count)
{
    uint32_t x = chance;
    for (int64_t i = 0; i < count; i++) {
        x = x * 1664525u + 1013904223u;
        memory[(x >> 8) & (MEBIBYTE - 1)]++;
    }
    chance = x;
}

static _Noreturn void fail(int error)
{
    mine->error = error;
    mine->state = FAILED;
    _exit(3);
}

/* ---- phases ------------------------------------------------------------------------------------------------- */

static void sample(struct tally *into)
{
    struct rusage used;
    getrusage(RUSAGE_THREAD, &used);
    into->cpu_ns = read_clock(CLOCK_THREAD_CPUTIME_ID);
    into->voluntary = used.ru_nvcsw;
    into->involuntary = used.ru_nivcsw;
}

/* A task that has to wait for its turn sees a phase's end late, but then it did nothing meanwhile: its account of the
 * phase is exact. Says whether the request at work goes on: only from one serving phase into the next. */
static int turn_page(int64_t t)
{
    int goes_on = act->doing == SERVE;
    while (phase < head->phases && t >= phase_end) {
        struct tally present;
        sample(&present);
        tallies[phase].cpu_ns = present.cpu_ns - last.cpu_ns;
        tallies[phase].voluntary = present.voluntary - last.voluntary;
        tallies[phase].involuntary = present.involuntary - last.involuntary;
        last = present;
        if (++phase == head->phases) {
            phase_end = INT64_MAX;
            return 0;
        }
        act = &acts[phase];
        phase_end = begin + starts[phase + 1];
        goes_on = goes_on && act->doing == SERVE;
        if (!goes_on)
            next_arrival = act->first;
    }
    return goes_on;
}

static void count(int64_t units, int64_t t)
{
    int64_t bin = (t - begin) / head->bin_ns;
    tallies[phase].progress += units;
    bins[bin < head->bins ? bin : head->bins - 1] += units;
}

/* Says whether the work came to its end; otherwise the phase ended, and what was asked for no longer counts. */
static int work(int64_t units)
{
    while (units > 0) {
        int64_t some = units < CHUNK ? units : CHUNK;
        if (act->doing == SCAN)
            scan(some);
        else
            compute(some);
        units -= some;
        int64_t t = now();
        if (act->doing != PIPE)
            count(some, t);
        if (t >= phase_end && !turn_page(t))
            return 0;
    }
    return 1;
}

static int64_t units_of(int64_t work_ns) { return (int64_t)((double)work_ns * (double)head->compute_per_ms / 1e6); }

/* ---- what players do: each returns when the phase is over ----------------------------------------------------- */

static int64_t work_of_arrival(int64_t index)
{
    for (int64_t k = phase; k >= 0; k--)
        if (acts[k].doing == SERVE && index >= acts[k].first && index < acts[k].end)
            return acts[k].work_ns;
    return act->work_ns;
}

static void serve(void)
{
    while (phase < head->phases && act->doing == SERVE) {
        int64_t arrival = next_arrival < act->end ? begin + arrivals[next_arrival] : phase_end;
        if (arrival > now())
            nap(arrival < phase_end ? arrival : phase_end);
        int64_t t = now();
        if (t >= phase_end) {
            turn_page(t);
        } else if (work(units_of(work_of_arrival(next_arrival)))) {
            done[next_arrival] = now() - begin;
            next_arrival++;
        }
    }
}

static void cycle(void)
{
    int64_t here = phase, turn = 0;
    const int64_t *gaps = (const int64_t *)(schedule + act->gaps_at);
    int64_t gaps_count = act->gaps, length = units_of(act->work_ns);
    while (phase == here && work(length)) {
        int64_t until = now() + gaps[turn++ % gaps_count];
        nap(until < phase_end ? until : phase_end);
        int64_t t = now();
        if (t >= phase_end)
            turn_page(t);
    }
}

/* A peer that is gone spoils the play, unless all is over and it merely saw that first. */
static void peer_gone(int error)
{
    if (error != EPIPE || now() < begin + starts[head->phases])
        fail(error);
}

/* Bytes carry their phase: one that was on its way when a phase ended must not count in the next. */
static int receive(int fd, int *kept)
{
    int64_t here = phase;
    while (phase == here) {
        int64_t t = now();
        if (t >= phase_end) {
            turn_page(t);
            break;
        }
        if (*kept < 0) {
            int64_t left = phase_end - t;
            struct timespec limit = { left / 1000000000, left % 1000000000 };
            struct pollfd ready = { fd, POLLIN, 0 };
            unsigned char tag;
            if (ppoll(&ready, 1, &limit, NULL) <= 0)
                continue;
            ssize_t got = read(fd, &tag, 1);
            if (got == 0)
                peer_gone(EPIPE);
            if (got <= 0)
                continue;
            *kept = tag;
        }
        int8_t ahead = (int8_t)(uint8_t)(*kept - (phase & 255));
        if (ahead > 0) {          /* the peer saw the new phase first */
            nap(phase_end);
            continue;
        }
        *kept = -1;
        if (ahead == 0)
            return 1;
    }
    return 0;
}

static void chat(int from, int to, int first)
{
    static int kept = -1;
    int64_t here = phase, length = units_of(act->work_ns);
    unsigned char tag = (unsigned char)(phase & 255);
    if (first && write(to, &tag, 1) != 1)
        peer_gone(errno);
    while (phase == here && receive(from, &kept) && work(length)) {
        count(1, now());
        if (write(to, &tag, 1) != 1)
            peer_gone(errno);
    }
}

/* One that rests sleeps through the ends of phases that it rests in as well: a look at the clock would be a wake-up, a
 * wait and two switches, which the agent sees and the simulator does not have. The account is exact: it did nothing. */
static int64_t rest_end(void)
{
    int64_t then = phase;
    while (then < head->phases && acts[then].doing == REST)
        then++;
    if (then < head->phases && acts[then].doing == SERVE && acts[then].first < acts[then].end)
        return begin + arrivals[acts[then].first];
    return begin + starts[then];
}

static void perform(int from, int to)
{
    int64_t index = me - (const struct player *)(schedule + head->players_at);
    while (phase < head->phases) {
        switch ((enum doing)act->doing) {
        case REST:
            nap(rest_end());
            turn_page(now());
            break;
        case SERVE:
            serve();
            break;
        case COMPUTE:
        case SCAN:
            work(INT64_MAX);
            break;
        case CYCLE:
            cycle();
            break;
        case PIPE:
            chat(from, to, index < me->peer);
            break;
        }
    }
}

/* ---- one player ---------------------------------------------------------------------------------------------- */

static void look_at(int64_t index)
{
    me = (const struct player *)(schedule + head->players_at) + index;
    acts = act = (const struct act *)(schedule + me->acts_at);
    starts = (const int64_t *)(schedule + head->starts_at);
    arrivals = (const int64_t *)(schedule + me->arrivals_at);
    mine = (struct result *)(results + me->result_at);
    done = (int64_t *)(results + mine->done_at);
    bins = (int64_t *)(results + mine->bins_at);
    tallies = (struct tally *)(results + mine->tallies_at);
}

static void prepare(void)
{
    cpu_set_t set;
    struct sched_param plain = { 0 };
    CPU_ZERO(&set);
    for (int64_t i = 0; i < head->cpus; i++)
        CPU_SET((size_t)((const int64_t *)(schedule + head->cpus_at))[i], &set);
    if (head->cpus && sched_setaffinity(0, sizeof set, &set))
        fail(errno);
    sched_setscheduler(0, SCHED_OTHER, &plain);   /* a protected caller's setting is not for its loads */
    setpriority(PRIO_PROCESS, 0, 0);              /* not allowed after a nicer caller: then all share that */
    prctl(PR_SET_TIMERSLACK, 1);
    prctl(PR_SET_NAME, me->name);
    memory = malloc(MEBIBYTE);
    if (!memory)
        fail(ENOMEM);
    memset((void *)memory, 1, MEBIBYTE);
}

_Noreturn void play(int64_t index, int ready, int from, int to)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_IGN);
    look_at(index);
    prepare();
    mine->state = READY;
    if (write(ready, "r", 1) != 1)
        fail(errno);
    close(ready);
    while (!__atomic_load_n(&stage->go, __ATOMIC_ACQUIRE))
        syscall(SYS_futex, &stage->go, FUTEX_WAIT, 0, NULL, NULL, 0);
    begin = stage->start_ns;
    phase_end = begin + starts[1];
    next_arrival = act->first;
    if (act->doing == REST) {
        sample(&last);
    } else {
        nap(begin);
        sample(&last);
    }
    perform(from, to);
    mine->state = ENDED;
    _exit(0);
}

/* ---- calibration --------------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The speed of a quiet moment: the upper quartile of batches of about a millisecond of CPU time each. The loop is the
 * one that plays, its look at the clock included. */
int64_t per_ms(enum doing doing)
{
    enum { BATCHES = 64, UNITS = 512 * 1024 };
    static struct act only;
    static struct head bare;
    static struct tally tally;
    static int64_t bin;
    double speeds[BATCHES];
    memory = calloc(1, MEBIBYTE);
    if (!memory)
        return 0;
    only.doing = doing;
    bare.phases = bare.bins = 1;
    bare.bin_ns = INT64_MAX;
    head = &bare;
    act = &only;
    tallies = &tally;
    bins = &bin;
    phase_end = INT64_MAX;
    for (int i = -4; i < BATCHES; i++) {
        int64_t before = read_clock(CLOCK_THREAD_CPUTIME_ID);
        work(UNITS);
        int64_t took = read_clock(CLOCK_THREAD_CPUTIME_ID) - before;
        if (i >= 0)
            speeds[i] = UNITS * 1e6 / (double)(took > 0 ? took : 1);
    }
    qsort(speeds, BATCHES, sizeof *speeds, compare);
    return (int64_t)speeds[BATCHES * 3 / 4];
}
