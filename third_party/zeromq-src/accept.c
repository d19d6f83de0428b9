/* accept4 for libzmq, which aborts the process when it has no descriptor for a connection to an ipc listener. One is
 * kept in reserve: it is given up for the moment in which the connection is taken and closed, so that whoever connects
 * hears of it at once and the listener does not come back for it again and again. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static atomic_int spare = -1;

static void keep_spare(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int old = fd >= 0 ? atomic_exchange(&spare, fd) : -1;
    if (old >= 0)
        close(old); /* another thread was as fast */
}

int hilum_accept4(int listener, struct sockaddr *address, socklen_t *length, int flags)
{
    int connection = accept4(listener, address, length, flags);
    if (connection >= 0) {
        if (atomic_load(&spare) < 0)
            keep_spare();
        return connection;
    }
    if (errno != EMFILE && errno != ENFILE)
        return -1;
    int given = atomic_exchange(&spare, -1);
    if (given >= 0) {
        close(given);
        connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection >= 0)
            close(connection);
        keep_spare();
    } else {
        struct timespec moment = {.tv_nsec = 10 * 1000 * 1000};
        nanosleep(&moment, NULL);
    }
    errno = ECONNABORTED; /* libzmq passes over it */
    return -1;
}
