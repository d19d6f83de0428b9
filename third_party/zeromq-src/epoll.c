/* epoll for libzmq, which closes a connection on EPOLLHUP while it does not read from it because a queue is full, and drops what
 * the kernel still holds of it: the last words of a peer that has gone. Here whoever waits for nothing is told of nothing,
 * a hangup neither (to the kernel "no events" means errors and hangups), and where there is something to read, the hangup is found by
 * reading up to it. libzmq asks for input again when its queue has room, so the end comes after the last message. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/epoll.h>

int hilum_epoll_ctl(int epoll, int action, int fd, struct epoll_event *event)
{
    if (action == EPOLL_CTL_MOD && event->events == 0)
        action = EPOLL_CTL_DEL;
    int result = epoll_ctl(epoll, action, fd, event);
    if (result == 0 || errno != ENOENT)
        return result;
    /* It waited for nothing until now. */
    return action == EPOLL_CTL_MOD ? epoll_ctl(epoll, EPOLL_CTL_ADD, fd, event) : 0;
}

int hilum_epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
    int count = epoll_wait(epoll, events, most, timeout);
    for (int at = 0; at < count; at++) {
        /* libzmq would read twice: once for the hangup, and again, with its queue full, for the input. */
        if (events[at].events & (EPOLLIN | EPOLLOUT))
            events[at].events &= ~(EPOLLERR | EPOLLHUP);
    }
    return count;
}
