/* Preloaded into a process, counts what it does to files below a folder and lets one of these operations go wrong.
 *
 * FILE_FAULTS_UNDER     the folder; nothing else is touched
 * FILE_FAULTS_AT        number of the operation, from 1; 0 counts only
 * FILE_FAULTS_ACTION    "kill" (SIGKILL before the operation), an errno number (this and all later operations that
 *                       take space or change something fail with it), or "copy:COMMAND" (before every operation,
 *                       COMMAND runs with the number as its argument)
 * FILE_FAULTS_LOG       a file that gets a line for every operation
 *
 * A process can also set these while it runs: file_faults_set(under, at, action), which begins to count anew, and
 * file_faults_count(), file_faults_hits() say how many there have been, and how many of them failed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char under[PATH_MAX], action[PATH_MAX], log_path[PATH_MAX];
static long at, count, hits;
static int ready;

static void copy(char *to, const char *from) { snprintf(to, PATH_MAX, "%s", from ? from : ""); }

__attribute__((constructor)) static void start(void) {
  const char *number = getenv("FILE_FAULTS_AT");
  copy(under, getenv("FILE_FAULTS_UNDER"));
  copy(action, getenv("FILE_FAULTS_ACTION"));
  copy(log_path, getenv("FILE_FAULTS_LOG"));
  at = number ? atol(number) : 0;
  unsetenv("LD_PRELOAD"); /* Not for children. */
  ready = 1;
}

void file_faults_set(const char *folder, long number, const char *what) {
  pthread_mutex_lock(&mutex);
  copy(under, folder);
  copy(action, what);
  at = number;
  count = hits = 0;
  pthread_mutex_unlock(&mutex);
}

long file_faults_count(void) { return count; }
long file_faults_hits(void) { return hits; }

static int ours(const char *path) { return ready && under[0] && path && !strncmp(path, under, strlen(under)); }

static int path_of(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, PATH_MAX - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return 1;
}

static const char *absolute(int folder, const char *name, char *path) {
  if (!name || name[0] == '/') return name;
  if (folder == AT_FDCWD) {
    if (!getcwd(path, PATH_MAX)) return name;
  } else if (!path_of(folder, path)) {
    return name;
  }
  size_t size = strlen(path);
  snprintf(path + size, PATH_MAX - size, "/%s", name);
  return path;
}

enum { FOREIGN, FAILED, LOCKED };

/* What is to be done about an operation: FAILED, errno is set; LOCKED, it goes on, and nothing else below the folder
 * does before it is done, so that what is copied stands still. */
static int judge(const char *name, const char *path, int frees) {
  int failed = 0;
  if (!ours(path)) return FOREIGN;
  pthread_mutex_lock(&mutex);
  count++;
  if (log_path[0]) {
    int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    ssize_t (*real_write)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    char line[PATH_MAX + 64];
    int size = snprintf(line, sizeof line, "%ld %s %s\n", count, name, path);
    int fd = real_open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (fd >= 0) {
      if (real_write(fd, line, size) < 0) abort();
      close(fd);
    }
  }
  if (!strncmp(action, "copy:", 5)) {
    char number[32], command[PATH_MAX], *arguments[] = {command, number, NULL}, *environment[] = {"PATH=/usr/bin:/bin", NULL};
    pid_t child;
    int status;
    snprintf(number, sizeof number, "%ld", count);
    copy(command, action + 5);
    if (posix_spawn(&child, command, NULL, NULL, arguments, environment)) abort();
    if (waitpid(child, &status, 0) < 0 || status) abort();
  } else if (at && count == at && !strcmp(action, "kill")) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
  } else if (at && count >= at && atoi(action)) {
    int number = atoi(action);
    /* A full disk lets one delete, and a broken one may fail at anything. */
    if (!(frees && (number == ENOSPC || number == EDQUOT))) {
      failed = 1;
      hits++;
      errno = number;
    }
  }
  if (!failed) return LOCKED;
  pthread_mutex_unlock(&mutex);
  return FAILED;
}

#define DO(type, label, path, frees, call) \
  int judgement = judge(label, path, frees); \
  if (judgement == FAILED) return -1; \
  type result = call; \
  if (judgement == LOCKED) pthread_mutex_unlock(&mutex); \
  return result

#define REAL(type, name, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = dlsym(RTLD_NEXT, name)

static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC); }

#define OPEN(name) \
  int name(const char *file, int flags, ...) { \
    char path[PATH_MAX]; \
    mode_t mode = 0; \
    va_list list; \
    va_start(list, flags); \
    if (flags & (O_CREAT | O_TMPFILE)) mode = va_arg(list, mode_t); \
    va_end(list); \
    REAL(int, #name, const char *, int, ...); \
    DO(int, "open", writes(flags) ? absolute(AT_FDCWD, file, path) : NULL, 0, real(file, flags, mode)); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
  int name(int folder, const char *file, int flags, ...) { \
    char path[PATH_MAX]; \
    mode_t mode = 0; \
    va_list list; \
    va_start(list, flags); \
    if (flags & (O_CREAT | O_TMPFILE)) mode = va_arg(list, mode_t); \
    va_end(list); \
    REAL(int, #name, int, const char *, int, ...); \
    DO(int, "open", writes(flags) ? absolute(folder, file, path) : NULL, 0, real(folder, file, flags, mode)); \
  }
OPENAT(openat)
OPENAT(openat64)

#define ON_FD(type, label, name, parameters, arguments, types) \
  type name parameters { \
    char path[PATH_MAX]; \
    static type(*real) types; \
    if (!real) real = dlsym(RTLD_NEXT, #name); \
    DO(type, label, ready && under[0] && path_of(fd, path) ? path : NULL, 0, real arguments); \
  }
ON_FD(ssize_t, "write", write, (int fd, const void *data, size_t size), (fd, data, size), (int, const void *, size_t))
ON_FD(ssize_t, "write", writev, (int fd, const struct iovec *data, int parts), (fd, data, parts), (int, const struct iovec *, int))
ON_FD(ssize_t, "write", pwrite, (int fd, const void *data, size_t size, off_t offset), (fd, data, size, offset), (int, const void *, size_t, off_t))
ON_FD(ssize_t, "write", pwrite64, (int fd, const void *data, size_t size, off64_t offset), (fd, data, size, offset), (int, const void *, size_t, off64_t))
ON_FD(ssize_t, "write", pwritev, (int fd, const struct iovec *data, int parts, off_t offset), (fd, data, parts, offset), (int, const struct iovec *, int, off_t))
ON_FD(ssize_t, "write", pwritev64, (int fd, const struct iovec *data, int parts, off64_t offset), (fd, data, parts, offset), (int, const struct iovec *, int, off64_t))
ON_FD(int, "fsync", fsync, (int fd), (fd), (int))
ON_FD(int, "fsync", fdatasync, (int fd), (fd), (int))
ON_FD(int, "truncate", ftruncate, (int fd, off_t size), (fd, size), (int, off_t))
ON_FD(int, "truncate", ftruncate64, (int fd, off64_t size), (fd, size), (int, off64_t))

#define ON_PATH(label, name, parameters, arguments, types, folder, file, frees) \
  int name parameters { \
    char path[PATH_MAX]; \
    static int(*real) types; \
    if (!real) real = dlsym(RTLD_NEXT, #name); \
    DO(int, label, absolute(folder, file, path), frees, real arguments); \
  }
ON_PATH("mkdir", mkdir, (const char *file, mode_t mode), (file, mode), (const char *, mode_t), AT_FDCWD, file, 0)
ON_PATH("mkdir", mkdirat, (int at_, const char *file, mode_t mode), (at_, file, mode), (int, const char *, mode_t), at_, file, 0)
ON_PATH("rmdir", rmdir, (const char *file), (file), (const char *), AT_FDCWD, file, 1)
ON_PATH("unlink", unlink, (const char *file), (file), (const char *), AT_FDCWD, file, 1)
ON_PATH("unlink", unlinkat, (int at_, const char *file, int flags), (at_, file, flags), (int, const char *, int), at_, file, 1)
ON_PATH("rename", rename, (const char *file, const char *to), (file, to), (const char *, const char *), AT_FDCWD, file, 1)
ON_PATH("rename", renameat, (int at_, const char *file, int b, const char *to), (at_, file, b, to), (int, const char *, int, const char *), at_, file, 1)
ON_PATH("rename", renameat2, (int at_, const char *file, int b, const char *to, unsigned flags), (at_, file, b, to, flags), (int, const char *, int, const char *, unsigned), at_, file, 1)
ON_PATH("link", link, (const char *file, const char *to), (file, to), (const char *, const char *), AT_FDCWD, file, 0)
ON_PATH("truncate", truncate, (const char *file, off_t size), (file, size), (const char *, off_t), AT_FDCWD, file, 0)
ON_PATH("truncate", truncate64, (const char *file, off64_t size), (file, size), (const char *, off64_t), AT_FDCWD, file, 0)
