/* GET requests at a constant rate, whether or not earlier ones were answered, as clients that know nothing of each other
 * send them. A request's time counts from the moment at which it was due, not from when a connection was free for it
 * (G. Tene, "coordinated omission"). Bodies are thrown away by the kernel (MSG_TRUNC). Clients keep their connections:
 * each is answered once before the clock starts.
 *
 *     pace HOST PORT RATE SECONDS CONNECTIONS RANGE RANGES SEED PATH...
 *
 * RANGE: bytes of one range, 0 for whole files; RANGES: how many of them a file has. Prints one JSON object; times are
 * milliseconds, "late" is how much later than due requests were sent: this program's own waiting for a processor or a
 * connection. Exits 1 where an answer was none that was asked for.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD 8192
#define STEP (1 << 20)
#define PATIENCE 20.0

typedef struct {
    int fd, busy;
    double due;
    long left; /* bytes of the body that are still to come; -1: its head is */
    int got;
    char head[HEAD];
} Connection;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "pace: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t state;

static uint64_t any(uint64_t below) { /* xorshift64* */
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return (state * 2685821657736338717ULL >> 11) % below;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void tell(const char *name, double *times, long count, const char *end) {
    const double at[] = {0.5, 0.9, 0.99, 0.999, 1.0};
    const char *names[] = {"p50", "p90", "p99", "p99.9", "most"};
    qsort(times, count, sizeof *times, compare);
    printf("\"%s\": {", name);
    for (int i = 0; i < 5; i++) {
        long place = (long)(at[i] * count);
        printf("%s\"%s\": %.3f", i ? ", " : "", names[i], 1e3 * times[place < count ? place : count - 1]);
    }
    printf("}%s", end);
}

static void ask(Connection *c, const char *host, char **paths, int count, long range, long ranges) {
    char text[2048];
    int size = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: %s\r\n", paths[any(count)], host);
    if (range) {
        long first = (long)any(ranges) * range;
        size += snprintf(text + size, sizeof text - size, "Range: bytes=%ld-%ld\r\n", first, first + range - 1);
    }
    size += snprintf(text + size, sizeof text - size, "\r\n");
    if (send(c->fd, text, size, MSG_NOSIGNAL) != size) fail("send");
    c->left = -1, c->got = 0, c->busy = 1;
}

/* Reads what is there. 1: the first bytes came with this; 2: the answer is whole; 3: both. */
static int take(Connection *c, long range) {
    int found = 0;
    for (;;) {
        if (c->left < 0) {
            ssize_t n = recv(c->fd, c->head + c->got, HEAD - 1 - c->got, MSG_DONTWAIT);
            if (n < 0 && errno == EAGAIN) return found;
            if (n <= 0) fail("the connection ended");
            if (!c->got) found |= 1;
            c->got += n, c->head[c->got] = 0;
            char *end = strstr(c->head, "\r\n\r\n"), *length = strcasestr(c->head, "\r\ncontent-length:");
            if (!end) continue;
            if (strncmp(c->head, range ? "HTTP/1.1 206" : "HTTP/1.1 200", 12) || !length) {
                fprintf(stderr, "pace: %.300s\n", c->head);
                exit(1);
            }
            c->left = atol(length + 17) - (c->got - (end + 4 - c->head));
        } else {
            ssize_t n = recv(c->fd, NULL, c->left < STEP ? c->left : STEP, MSG_TRUNC | MSG_DONTWAIT);
            if (n < 0 && errno == EAGAIN) return found;
            if (n <= 0) fail("the connection ended");
            c->left -= n;
        }
        if (c->left == 0) return found | 2;
    }
}

int main(int argc, char **argv) {
    if (argc < 10) return fprintf(stderr, "pace HOST PORT RATE SECONDS CONNECTIONS RANGE RANGES SEED PATH...\n"), 2;
    const char *host = argv[1];
    double rate = atof(argv[3]), seconds = atof(argv[4]);
    int connections = atoi(argv[5]), paths = argc - 9;
    long range = atol(argv[6]), ranges = atol(argv[7]), total = (long)(rate * seconds);
    state = 88172645463325252ULL ^ (strtoull(argv[8], NULL, 10) + 1) * 2654435769ULL;
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    if (inet_pton(AF_INET, host, &where.sin_addr) != 1) fail("HOST is no IPv4 address");
    Connection *all = calloc(connections, sizeof *all), **idle = calloc(connections, sizeof *idle);
    double *first = calloc(total + 1, sizeof *first), *whole = calloc(total + 1, sizeof *whole);
    double *late = calloc(total + 1, sizeof *late);
    int all_of_them = epoll_create1(0), free_ = 0;
    for (int i = 0; i < connections; i++) {
        int one = 1;
        all[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(all[i].fd, (struct sockaddr *)&where, sizeof where)) fail("connect");
        setsockopt(all[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        if (epoll_ctl(all_of_them, EPOLL_CTL_ADD, all[i].fd, &event)) fail("epoll");
        idle[free_++] = &all[i];
        ask(&all[i], host, argv + 9, paths, range, ranges);
        while (!(take(&all[i], range) & 2)) {
            struct pollfd one = {.fd = all[i].fd, .events = POLLIN};
            if (poll(&one, 1, (int)(1e3 * PATIENCE)) != 1) fail("no answer");
        }
        all[i].busy = 0;
    }
    long begun = 0, started = 0, ended = 0;
    prctl(PR_SET_TIMERSLACK, 1);
    double start = now(), last = start;
    while (ended < total) {
        while (begun < total && free_ && start + begun / rate <= now()) {
            Connection *c = idle[--free_];
            c->due = start + begun / rate;
            late[begun++] = now() - c->due;
            ask(c, host, argv + 9, paths, range, ranges);
        }
        struct epoll_event events[64];
        double left = free_ && begun < total ? start + begun / rate - now() : 0.1;
        long pause = left > 0 ? (long)(1e9 * (left < 0.1 ? left : 0.1)) : 0;
        struct timespec most = {0, pause};
        int count = epoll_pwait2(all_of_them, events, 64, &most, NULL);
        for (int i = 0; i < count; i++) {
            Connection *c = events[i].data.ptr;
            if (!c->busy) fail("bytes that nobody asked for");
            int found = take(c, range);
            last = now();
            if (found & 1) first[started++] = last - c->due;
            if (found & 2) whole[ended++] = last - c->due, c->busy = 0, idle[free_++] = c;
        }
        if (now() - last > PATIENCE && begun) fail("no answer");
    }
    printf("{\"requests\": %ld, \"achieved/s\": %.1f, ", total, total / (last - start));
    tell("first byte, ms", first, started, ", ");
    tell("late, ms", late, begun, ", ");
    tell("whole, ms", whole, ended, "}\n");
    return 0;
}
