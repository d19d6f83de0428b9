/* The least that anybody can do with lines, for scripts/bench logs.
 *
 *   flood write WORKER LINES line|block TIMES   LINES numbered lines of 100 bytes to stdout: one write each, or in blocks of
 *                                               64 KiB that straddle lines; appends its first and last moment to TIMES
 *   flood pump FILE WORKERS LINES KIND TIMES    so many writers, and one epoll loop that copies their pipes into FILE without
 *                                               looking; appends its last moment and its processor time to TIMES
 *   flood check LINES FILE...                   reads timelines; whether every line of every worker is there, whole, once, in order
 *
 * Moments are nanoseconds of CLOCK_REALTIME. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 100, BLOCK = 65536, MOST = 64 };

static long long now(clockid_t clock) {
    struct timespec at;
    clock_gettime(clock, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "flood: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void put(int fd, const char *bytes, size_t count) {
    while (count > 0) {
        ssize_t done = write(fd, bytes, count);
        if (done < 0) {
            if (errno == EINTR) continue;
            fail("write");
        }
        bytes += done;
        count -= done;
    }
}

static void note(const char *path, const char *what, long long first, long long second) {
    char line[128];
    int length = snprintf(line, sizeof line, "%s %lld %lld\n", what, first, second);
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) fail(path);
    put(fd, line, length);
    close(fd);
}

/* "WORKER NUMBER" and dashes: 99 bytes and the line end. */
static void form(char *line, int worker, long number) {
    for (int at = 12; at > 2; at--, number /= 10) line[at] = '0' + number % 10;
    line[0] = '0' + worker / 10;
    line[1] = '0' + worker % 10;
    line[2] = ' ';
}

static int writer(int fd, int worker, long lines, int blocks, const char *times) {
    static char block[BLOCK + LINE];
    char line[LINE];
    memset(line, '-', sizeof line);
    line[13] = ' ';
    line[LINE - 1] = '\n';
    size_t held = 0;
    long long begin = now(CLOCK_REALTIME);
    for (long number = 0; number < lines; number++) {
        form(line, worker, number);
        if (!blocks) {
            put(fd, line, LINE);
            continue;
        }
        memcpy(block + held, line, LINE);
        held += LINE;
        if (held >= BLOCK) {
            put(fd, block, BLOCK);
            held -= BLOCK;
            memmove(block, block + BLOCK, held);
        }
    }
    put(fd, block, held);
    note(times, "writer", begin, now(CLOCK_REALTIME));
    return 0;
}

static int pump(const char *path, int workers, long lines, int blocks, const char *times) {
    static char buffer[BLOCK];
    struct epoll_event events[MOST];
    int epoll = epoll_create1(EPOLL_CLOEXEC), open_pipes = workers;
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (epoll < 0 || file < 0) fail(path);
    for (int worker = 0; worker < workers; worker++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC)) fail("pipe");
        pid_t pid = fork();
        if (pid < 0) fail("fork");
        if (pid == 0) _exit(writer(ends[1], worker, lines, blocks, times));
        close(ends[1]);
        struct epoll_event event = {.events = EPOLLIN, .data.fd = ends[0]};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event)) fail("epoll_ctl");
    }
    while (open_pipes > 0) {
        int ready = epoll_wait(epoll, events, MOST, -1);
        for (int at = 0; at < ready; at++) {
            ssize_t count = read(events[at].data.fd, buffer, sizeof buffer);
            if (count < 0) fail("read");
            if (count == 0) {
                /* Later writers hold a copy of this end: closing it alone would not take it out. */
                epoll_ctl(epoll, EPOLL_CTL_DEL, events[at].data.fd, NULL);
                close(events[at].data.fd);
                open_pipes--;
            } else {
                put(file, buffer, count);
            }
        }
    }
    note(times, "pump", now(CLOCK_REALTIME), now(CLOCK_PROCESS_CPUTIME_ID));
    while (wait(NULL) > 0) {}
    return 0;
}

/* `2026-11-21T03:42:11.123456Z flood.1 out | 01 0000000000 ---`: numbers of each worker must count up one by one. */
static int check(long lines, int count, char **paths) {
    static long next[100];
    static char *line;
    size_t room = 0;
    long torn = 0, wrong = 0, workers = 0, missing = 0;
    for (int at = 0; at < count; at++) {
        FILE *file = fopen(paths[at], "r");
        if (!file) fail(paths[at]);
        ssize_t length;
        while ((length = getline(&line, &room, file)) > 0) {
            char *text = strstr(line, " out | ");
            if (!text) continue; /* the node's own words */
            text += 7;
            length -= text - line;
            int worker;
            long number;
            if (length != LINE || text[LINE - 1] != '\n' || text[LINE - 2] != '-' ||
                sscanf(text, "%2d %ld ", &worker, &number) != 2 || worker < 0) {
                torn++;
                continue;
            }
            wrong += number != next[worker];
            next[worker] = number + 1;
        }
        fclose(file);
    }
    for (int worker = 0; worker < 100; worker++) {
        workers += next[worker] > 0;
        missing += next[worker] > 0 && next[worker] != lines;
    }
    printf("%ld workers, %ld torn, %ld lost or out of order, %ld unfinished\n", workers, torn, wrong, missing);
    return torn || wrong || missing;
}

int main(int argc, char **argv) {
    if (argc == 6 && !strcmp(argv[1], "write"))
        return writer(1, atoi(argv[2]), atol(argv[3]), !strcmp(argv[4], "block"), argv[5]);
    if (argc == 7 && !strcmp(argv[1], "pump") && atoi(argv[3]) <= MOST)
        return pump(argv[2], atoi(argv[3]), atol(argv[4]), !strcmp(argv[5], "block"), argv[6]);
    if (argc >= 4 && !strcmp(argv[1], "check")) return check(atol(argv[2]), argc - 3, argv + 3);
    fprintf(stderr, "usage: see the head of flood.c\n");
    return 2;
}
