/* What the parts of the program behind real-program loads share. Its words are in program_stage.c. */
#ifndef NPUOPS_PROGRAM_LOAD_H
#define NPUOPS_PROGRAM_LOAD_H
#include <stdint.h>

enum { SKIPPED = -1, REFUSED = -2 };   /* of an answer's instant: none came, or one that says no */

/* A descriptor's content, shared; of any length. */
struct span { int64_t *at; int64_t count; };

_Noreturn void give_up(const char *what);
_Noreturn void refuse(const char *words);
int64_t number(const char *word);
int64_t now_ns(void);
void nap_until(int64_t instant);
struct span map_file(const char *fd, int writable);
int64_t await_go(void);   /* says `r` on stdout; returns the instant that stdin then tells */
void compute(int64_t iterations);

/* Replies: length of the first one in these bytes, 0 when it is not whole yet, -1 when it is none. */
int64_t http_reply(const char *at, int64_t count, int *fine);
int64_t redis_reply(const char *at, int64_t count, int *fine);
int64_t memcached_reply(const char *at, int64_t count, int *fine);

int ask(char **words);
int wake(char **words);
int crew(char **words);
#endif
