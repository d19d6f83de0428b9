/* The bare loop that hilum is measured against: posix_spawn with two pipes a process, waitpid, nothing else. No marks, no
 * sessions, no log, no state: less than this nobody can do who starts a program and reads what it writes.
 *
 *   bare cycle N            starts N, sends TERM to all, waits for all; prints both times
 *   bare restart N KILLS    kills one of N after the other with KILL, waits, starts the next; prints each latency
 *   bare crash KILLS        starts a program that fails at once, waits; prints the processor time of one round
 *   bare tick MILLIS        a healthy service: a numbered line every so often, and by how much it was late
 *
 * Times are in nanoseconds. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

struct child {
    pid_t pid;
    int out, err;
};

static long long now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "bare: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void start(struct child *child, char *const argv[]) {
    int out[2], err[2];
    if (pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC)) fail("pipe");
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_adddup2(&actions, err[1], 2);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    errno = posix_spawn(&child->pid, argv[0], &actions, &attributes, argv, environ);
    if (errno) fail(argv[0]);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    close(err[1]);
    child->out = out[0];
    child->err = err[0];
}

static void end(struct child *child) {
    if (waitpid(child->pid, NULL, 0) < 0) fail("waitpid");
    close(child->out);
    close(child->err);
}

static struct child *start_all(int count, char *const argv[]) {
    struct child *children = calloc(count, sizeof *children);
    if (!children) fail("calloc");
    for (int i = 0; i < count; i++) start(&children[i], argv);
    return children;
}

static void end_all(struct child *children, int count, int signal) {
    for (int i = 0; i < count; i++) kill(children[i].pid, signal);
    for (int i = 0; i < count; i++) end(&children[i]);
}

int main(int argc, char **argv) {
    char *sleeper[] = {"/bin/sleep", "100000", NULL};
    char *failing[] = {"/bin/false", NULL};
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    const char *mode = argc > 2 ? argv[1] : "";
    int count = argc > 2 ? atoi(argv[2]) : 0;
    if (!strcmp(mode, "cycle")) {
        usleep(300000); /* as the other side does: it has been idle when the order comes */
        long long begin = now();
        struct child *children = start_all(count, sleeper);
        long long started = now();
        usleep(300000); /* and they settle before they are told to end */
        long long told = now();
        end_all(children, count, SIGTERM);
        printf("%lld %lld\n", started - begin, now() - told);
    } else if (!strcmp(mode, "restart") && argc > 3) {
        struct child *children = start_all(count, sleeper);
        int kills = atoi(argv[3]);
        usleep(300000);
        for (int i = 0; i < kills; i++) {
            struct child *child = &children[i % count];
            long long begin = now();
            kill(child->pid, SIGKILL);
            end(child);
            start(child, sleeper);
            printf("%lld\n", now() - begin);
            usleep(5000);
        }
        end_all(children, count, SIGKILL);
    } else if (!strcmp(mode, "crash")) {
        for (int i = 0; i < count; i++) {
            struct child child;
            start(&child, failing);
            end(&child);
            usleep(2000);
        }
        struct timespec used;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
        printf("%lld\n", (used.tv_sec * 1000000000LL + used.tv_nsec) / count);
    } else if (!strcmp(mode, "tick")) {
        struct timespec at;
        clock_gettime(CLOCK_MONOTONIC, &at);
        for (long number = 1;; number++) {
            at.tv_nsec += count * 1000000L;
            at.tv_sec += at.tv_nsec / 1000000000L;
            at.tv_nsec %= 1000000000L;
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
            printf("tick %ld late %lld\n", number, now() - (at.tv_sec * 1000000000LL + at.tv_nsec));
            fflush(stdout);
        }
    } else {
        fprintf(stderr, "usage: bare cycle N | restart N KILLS | crash N | tick MILLIS\n");
        return 2;
    }
    return 0;
}
