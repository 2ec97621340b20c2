/* What the two halves of the load program share: the files' layout, as in schedule_file.py, and a few names. */
#ifndef NPUOPS_LOAD_H
#define NPUOPS_LOAD_H
#include <stdint.h>

enum { MAGIC = 0x6e707564, VERSION = 1 };
enum doing { REST, SERVE, COMPUTE, SCAN, CYCLE, PIPE };
enum state { STARTING, READY, ENDED, FAILED };

struct head { int64_t magic, version, players, phases, cpus, bins, bin_ns, compute_per_ms, scan_per_ms;
              int64_t starts_at, cpus_at, players_at; };
struct player { int64_t session, peer, acts_at, arrivals_at, result_at, spare; char name[16]; };
struct act { int64_t doing, work_ns, gap_ns, first, end, gaps_at, gaps; };
struct stage { int64_t magic, version; int32_t go, culprit; int64_t start_ns; };   /* culprit: number of who ended badly, from 1 */
struct result { int64_t pid, state, error, status, done_at, bins_at, tallies_at; };
struct tally { int64_t progress, cpu_ns, voluntary, involuntary; };

extern const char *schedule;   /* read only */
extern char *results;
extern const struct head *head;
extern struct stage *stage;

_Noreturn void play(int64_t index, int ready, int from, int to);
int64_t per_ms(enum doing doing);   /* iterations; 0 without memory */
#endif
