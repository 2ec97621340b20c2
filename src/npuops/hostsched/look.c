/* What the agent does most often, without an interpreter in between: numbers out of files of /proc, for all tasks in one
 * call. task_counters.py and host_files.py do the same, slower, and say why it is done so; tests hold the two to the
 * same answers. Periods and limits come in as arguments. look_library.py declares the structures once more.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { SAME, CHANGED, GONE, FAILED };
enum { RUN_NS, WAIT_NS, TURNS, VOLUNTARY, INVOLUNTARY, COUNTERS };

struct habits {
    int64_t state_us, sure_us, short_ns, usual, idle_us, idle_every_us, idle_state_us;
};

struct row {
    const char *runs_path, *status_path;
    int32_t runs_fd, status_fd; /* kept open; -1: opened for each read */
    int32_t error, raw_size;
    char raw[96];
    int64_t counters[COUNTERS];
    int64_t booked_ns, asked_us, changed_us, next_us, waiting_since_us, usual, sure_turns, sure_left;
    int32_t waits, unused;
};

/* Bytes read, or -errno. */
static ssize_t read_start(int fd, const char *path, char *buffer, size_t most)
{
    ssize_t size;

    if (fd >= 0) {
        size = pread(fd, buffer, most, 0);
        return size < 0 ? -errno : size;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    size = read(fd, buffer, most);
    if (size < 0)
        size = -errno;
    close(fd);
    return size;
}

/* The next number of a text that ends with 0; -1 when there is none. Leaves `*text` behind it. */
static int64_t number(const char **text)
{
    const char *at = *text;
    int64_t value = 0;

    while (*at == ' ' || *at == '\t' || *at == '\n')
        at++;
    if (*at < '0' || *at > '9')
        return -1;
    for (; *at >= '0' && *at <= '9'; at++)
        value = value * 10 + (*at - '0');
    *text = at;
    return value;
}

/* Nothing is left to read, or the task is no more; anything else is for Python to tell. */
static int failed(struct row *row, ssize_t size)
{
    if (size == 0 || size == -ENOENT || size == -ESRCH)
        return GONE;
    row->error = (int32_t)-size;
    return FAILED;
}

struct status {
    char state;
    int64_t left, pushed;
};

static int read_status(struct row *row, struct status *found)
{
    static const char state[] = "\nState:\t", switches[] = "\nvoluntary_ctxt_switches:";
    char text[8193];
    ssize_t size = read_start(row->status_fd, row->status_path, text, sizeof text - 1);
    const char *at, *last = NULL;

    if (size <= 0)
        return failed(row, size);
    text[size] = 0;
    at = memmem(text, (size_t)size, state, sizeof state - 1);
    found->state = at ? at[sizeof state - 1] : 0;
    /* The last one: a name stands before it, and may hold anything. */
    for (at = text; (at = memmem(at, (size_t)(text + size - at), switches, sizeof switches - 1)); at++)
        last = at;
    if (!found->state || !last)
        return failed(row, -EINVAL);
    at = last + sizeof switches - 1;
    found->left = number(&at);
    at = strchr(at, ':');
    if (found->left < 0 || !at)
        return failed(row, -EINVAL);
    at++;
    found->pushed = number(&at);
    return found->pushed < 0 ? failed(row, -EINVAL) : SAME;
}

static int64_t larger(int64_t one, int64_t other)
{
    return one > other ? one : other;
}

/* As the kernel tells them now; what was told before is not taken back. */
static void take_switches(struct row *row, const struct status *status, int64_t turns)
{
    row->usual = status->pushed == row->counters[INVOLUNTARY] ? row->usual + 1 : 0;
    row->sure_turns = turns;
    row->sure_left = status->left;
    row->counters[VOLUNTARY] = larger(status->left, row->counters[VOLUNTARY]);
    row->counters[INVOLUNTARY] = status->pushed;
}

/* It has not run since the look before. */
static int quiet(const struct habits *habits, struct row *row, int64_t now_us)
{
    char again[sizeof row->raw];
    int64_t before[COUNTERS];
    struct status status;
    ssize_t size;
    int idle, told;

    if (row->waits) {
        int64_t longer_ns = row->booked_ns + (now_us - row->waiting_since_us) * 1000;

        if (longer_ns <= row->counters[WAIT_NS])
            return SAME;
        row->counters[WAIT_NS] = longer_ns;
        return CHANGED;
    }
    idle = now_us - row->changed_us >= habits->idle_us;
    if (idle)
        row->next_us = now_us + habits->idle_every_us;
    if (now_us - row->asked_us < (idle ? habits->idle_state_us : habits->state_us))
        return SAME;
    told = read_status(row, &status);
    if (told != SAME)
        return told;
    if (status.state == 'Z' || status.state == 'X')
        return GONE; /* its parent does not know yet */
    row->asked_us = now_us;
    /* It may have run and slept between the two reads: only what is still unchanged after them has waited. */
    size = read_start(row->runs_fd, row->runs_path, again, sizeof again);
    if (size <= 0 && failed(row, size) == FAILED)
        return FAILED;
    if (size != row->raw_size || memcmp(again, row->raw, (size_t)size)) {
        row->next_us = 0;
        return SAME;
    }
    if (status.state == 'R') {
        row->waits = 1;
        row->waiting_since_us = now_us;
        row->next_us = 0;
    }
    memcpy(before, row->counters, sizeof before);
    take_switches(row, &status, row->counters[TURNS]);
    return memcmp(before, row->counters, sizeof before) ? CHANGED : SAME;
}

static int look_at(const struct habits *habits, struct row *row, int64_t now_us)
{
    char raw[sizeof row->raw + 1];
    int64_t run_ns, booked_ns, turns, ran_ns, *counters = row->counters;
    struct status status;
    const char *at = raw;
    ssize_t size;

    if (now_us < row->next_us)
        return SAME;
    size = read_start(row->runs_fd, row->runs_path, raw, sizeof row->raw);
    if (size <= 0)
        return failed(row, size);
    if (size == row->raw_size && !memcmp(raw, row->raw, (size_t)size))
        return quiet(habits, row, now_us);
    raw[size] = 0;
    run_ns = number(&at);
    booked_ns = number(&at);
    turns = number(&at);
    if (run_ns < 0 || booked_ns < 0 || turns < 0)
        return failed(row, -EINVAL);
    ran_ns = run_ns - counters[RUN_NS];
    if (ran_ns > 0 && ran_ns <= (turns - counters[TURNS]) * habits->short_ns && row->usual >= habits->usual &&
        now_us - row->asked_us < habits->sure_us) {
        counters[VOLUNTARY] = larger(row->sure_left + turns - row->sure_turns, counters[VOLUNTARY]);
    } else {
        int told = read_status(row, &status);

        if (told != SAME)
            return told;
        row->asked_us = now_us;
        take_switches(row, &status, turns);
    }
    counters[RUN_NS] = run_ns;
    counters[WAIT_NS] = larger(booked_ns, counters[WAIT_NS]); /* what was told of a wait is not taken back */
    counters[TURNS] = turns;
    memcpy(row->raw, raw, (size_t)size);
    row->raw_size = (int32_t)size;
    row->booked_ns = booked_ns;
    row->changed_us = now_us;
    row->waits = 0;
    return CHANGED;
}

/* Looks at so many tasks; `counters` gets five numbers for each, `told` what became of it. How many ended or failed. */
int npuops_look(const struct habits *habits, struct row **rows, int64_t count, int64_t now_us, int64_t *counters,
                uint8_t *told)
{
    int bad = 0;

    for (int64_t each = 0; each < count; each++) {
        told[each] = (uint8_t)look_at(habits, rows[each], now_us);
        if (told[each] == CHANGED)
            memcpy(counters + each * COUNTERS, rows[each]->counters, sizeof rows[each]->counters);
        bad += told[each] >= GONE;
    }
    return bad;
}

enum { LOAD = 1, TIMES = 2, PRESSURE = 4 };

struct host {
    int64_t runnable, newest, busy_ticks, steal_ticks, pressure_us;
};

static int read_load(int fd, struct host *host)
{
    char text[129];
    ssize_t size = read_start(fd, "", text, sizeof text - 1);
    const char *at = text, *last;

    if (size <= 0)
        return 0;
    text[size] = 0;
    for (int skipped = 0; at && skipped < 3; skipped++)
        at = (at = strchr(at, ' ')) ? at + 1 : NULL;
    last = strrchr(text, ' ');
    if (!at || !last)
        return 0;
    host->runnable = number(&at) - 1; /* whoever asks runs */
    if (host->runnable < 0)
        host->runnable = 0;
    host->newest = number(&last);
    return host->newest < 0 ? 0 : LOAD;
}

static int read_times(int fd, struct host *host)
{
    enum { USER, NICE, SYSTEM, IDLE, IOWAIT, IRQ, SOFTIRQ, STEAL, TIMES_TOLD };
    char text[513];
    ssize_t size = read_start(fd, "", text, sizeof text - 1);
    int64_t ticks[TIMES_TOLD];
    const char *at;

    if (size <= 0)
        return 0;
    text[size] = 0;
    at = strchr(text, ' ');
    for (int each = 0; each < TIMES_TOLD; each++)
        if (!at || (ticks[each] = number(&at)) < 0)
            return 0;
    host->busy_ticks = ticks[USER] + ticks[NICE] + ticks[SYSTEM] + ticks[IRQ] + ticks[SOFTIRQ];
    host->steal_ticks = ticks[STEAL];
    return TIMES;
}

static int read_pressure(int fd, struct host *host)
{
    char text[257];
    ssize_t size = read_start(fd, "", text, sizeof text - 1);
    const char *at;

    if (size <= 0)
        return 0;
    text[size] = 0;
    at = strstr(text, "total="); /* the first line is of `some` */
    if (!at)
        return 0;
    at += strlen("total=");
    host->pressure_us = number(&at);
    return host->pressure_us < 0 ? 0 : PRESSURE;
}

/* Reads what has a descriptor (not -1); which of them told something, as bits. The others are for Python. */
int npuops_host(int load_fd, int times_fd, int pressure_fd, struct host *host)
{
    return (load_fd >= 0 ? read_load(load_fd, host) : 0) | (times_fd >= 0 ? read_times(times_fd, host) : 0) |
           (pressure_fd >= 0 ? read_pressure(pressure_fd, host) : 0);
}
