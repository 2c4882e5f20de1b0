/* The least that echoing media messages costs on this machine: a WebSocket echo by epoll, and the client that drives it.
 *
 *     echo_floor serve                            prints its port, echoes until standard input ends
 *     echo_floor drive PORT MESSAGES CONNECTIONS  each connection keeps one message on its way; exit code 0 when all came
 *
 * The server does what no server can leave out: one epoll_wait, one recv, unmask, one send for each message. It knows
 * exactly one client, this one: one unfragmented text message in flight, of 126 to 65535 bytes, RFC 6455's sample key.
 * The same client drives other servers too, so that both are measured by the same messages.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_MESSAGE = 4096, MAX_CONNECTIONS = 256, MAX_EVENTS = 64, CLIENT_HEAD = 8, SERVER_HEAD = 4 };

static const char UPGRADE[] =
    "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
static const char ACCEPT[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

struct peer {
    int fd;
    int open; /* the upgrade is over */
    size_t held;
    unsigned char data[MAX_MESSAGE + 16];
};

static struct peer peers[MAX_CONNECTIONS];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void no_delay(int fd) {
    int one = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0) die("TCP_NODELAY");
}

static void send_all(int fd, const void *data, size_t size) {
    /* A message fits the socket's buffer many times over: what is not taken at once is an error. */
    if (send(fd, data, size, MSG_NOSIGNAL) != (ssize_t)size) die("send");
}

static void watch(int poller, int fd, int at) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)at};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
}

/* ── the server ─────────────────────────────────────────────────────────────────────────────────────────────── */

/* Returns 0 when the peer is gone. */
static int serve_peer(struct peer *peer) {
    ssize_t got = recv(peer->fd, peer->data + peer->held, sizeof peer->data - peer->held, 0);
    if (got <= 0) return 0;
    peer->held += (size_t)got;
    if (!peer->open) {
        if (peer->held < 4 || memcmp(peer->data + peer->held - 4, "\r\n\r\n", 4)) return 1;
        peer->open = 1;
        peer->held = 0;
        send_all(peer->fd, ACCEPT, sizeof ACCEPT - 1);
        return 1;
    }
    if (peer->held < CLIENT_HEAD) return 1;
    unsigned char *head = peer->data;
    size_t size = (size_t)head[2] << 8 | head[3];
    if (head[0] != 0x81 || head[1] != (0x80 | 126) || size > MAX_MESSAGE) return 0;
    if (peer->held < CLIENT_HEAD + size) return 1;
    unsigned char *mask = head + 4, *body = head + CLIENT_HEAD;
    for (size_t at = 0; at < size; at++) body[at] ^= mask[at & 3];
    unsigned char *out = body - SERVER_HEAD;
    out[0] = 0x81;
    out[1] = 126;
    out[2] = (unsigned char)(size >> 8);
    out[3] = (unsigned char)size;
    send_all(peer->fd, out, size + SERVER_HEAD);
    peer->held = 0;
    return 1;
}

static int serve(void) {
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) < 0 || listen(listener, 128) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) < 0)
        die("listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    int poller = epoll_create1(0);
    watch(poller, listener, MAX_CONNECTIONS);
    watch(poller, STDIN_FILENO, MAX_CONNECTIONS + 1);
    for (int at = 0; at < MAX_CONNECTIONS; at++) peers[at].fd = -1;
    for (;;) {
        struct epoll_event events[MAX_EVENTS];
        int count = epoll_wait(poller, events, MAX_EVENTS, -1);
        if (count < 0 && errno != EINTR) die("epoll_wait");
        for (int n = 0; n < count; n++) {
            uint32_t at = events[n].data.u32;
            if (at == MAX_CONNECTIONS + 1) {
                char ignored[64];
                if (read(STDIN_FILENO, ignored, sizeof ignored) <= 0) return 0;
            } else if (at == MAX_CONNECTIONS) {
                int fd = accept(listener, NULL, NULL), free_at = 0;
                while (free_at < MAX_CONNECTIONS && peers[free_at].fd >= 0) free_at++;
                if (fd < 0) continue;
                if (free_at == MAX_CONNECTIONS) {
                    close(fd);
                    continue;
                }
                no_delay(fd);
                peers[free_at] = (struct peer){.fd = fd};
                watch(poller, fd, free_at);
            } else if (!serve_peer(&peers[at])) {
                close(peers[at].fd);
                peers[at].fd = -1;
            }
        }
    }
}

/* ── the client ─────────────────────────────────────────────────────────────────────────────────────────────── */

/* A media message of Twilio as the wire has it, masked with zeros; returns its size. */
static size_t media_message(unsigned char *out) {
    char *text = (char *)out + CLIENT_HEAD;
    int size = sprintf(text,
                       "{\"event\":\"media\",\"sequenceNumber\":\"4321\",\"media\":{\"track\":\"inbound\","
                       "\"chunk\":\"4320\",\"timestamp\":\"86400\",\"payload\":\"");
    /* 160 codes of silence in base64. */
    memset(text + size, '/', 213);
    memcpy(text + size + 213, "w==", 3);
    size += 216;
    size += sprintf(text + size, "\"},\"streamSid\":\"MZ%032d\"}", 0);
    const unsigned char head[CLIENT_HEAD] = {0x81, 0x80 | 126, (unsigned char)(size >> 8), (unsigned char)size};
    memcpy(out, head, sizeof head);
    return (size_t)size + CLIENT_HEAD;
}

static int open_connection(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect");
    no_delay(fd);
    send_all(fd, UPGRADE, sizeof UPGRADE - 1);
    char answer[2048];
    size_t held = 0;
    while (held < 4 || memcmp(answer + held - 4, "\r\n\r\n", 4)) {
        ssize_t got = held < sizeof answer ? recv(fd, answer + held, sizeof answer - held, 0) : -1;
        if (got <= 0) die("upgrade");
        held += (size_t)got;
    }
    if (memcmp(answer, "HTTP/1.1 101", 12)) die("upgrade refused");
    return fd;
}

static int drive(int port, long messages, int connections) {
    unsigned char message[MAX_MESSAGE];
    size_t size = media_message(message), echo = size - CLIENT_HEAD + SERVER_HEAD;
    int poller = epoll_create1(0);
    for (int at = 0; at < connections; at++) {
        peers[at] = (struct peer){.fd = open_connection(port)};
        watch(poller, peers[at].fd, at);
    }
    long to_send = messages, to_come = messages;
    for (int at = 0; at < connections && to_send; at++, to_send--) send_all(peers[at].fd, message, size);
    while (to_come) {
        struct epoll_event events[MAX_EVENTS];
        int count = epoll_wait(poller, events, MAX_EVENTS, 10000);
        if (count <= 0) die("no echo within 10 s");
        for (int n = 0; n < count; n++) {
            struct peer *peer = &peers[events[n].data.u32];
            ssize_t got = recv(peer->fd, peer->data + peer->held, sizeof peer->data - peer->held, 0);
            if (got <= 0) die("the server went away");
            peer->held += (size_t)got;
            if (peer->held < echo) continue;
            if (memcmp(peer->data + SERVER_HEAD, message + CLIENT_HEAD, echo - SERVER_HEAD)) {
                fputs("the echo is not what was sent\n", stderr);
                return 1;
            }
            peer->held = 0;
            to_come--;
            if (to_send) {
                to_send--;
                send_all(peer->fd, message, size);
            }
        }
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "serve")) return serve();
    if (argc == 5 && !strcmp(argv[1], "drive")) {
        int connections = atoi(argv[4]);
        if (connections < 1 || connections > MAX_CONNECTIONS) connections = 1;
        return drive(atoi(argv[2]), atol(argv[3]), connections);
    }
    fputs("usage: echo_floor serve | drive PORT MESSAGES CONNECTIONS\n", stderr);
    return 2;
}
