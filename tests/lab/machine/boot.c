/* SPDX-FileCopyrightText: 2026 crosscluster contributors
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * /init of a host that is a machine: loads the modules below /modules in the order of their names, mounts the tree
 * (/dev/vda, read-only) with the host's own files (/dev/vdb) at /mnt, and becomes Python there with machineinit.py.
 * One static program of raw system calls, as the guest's worker.c: no shell, no C library. What goes wrong is said on
 * the console; the kernel then panics because its init is gone, which nobody can overlook.
 */

typedef unsigned long u64;
typedef long s64;

s64 sys(s64 number, ...);
__asm__(".globl sys\n"
        "sys:\n"
        "  mov %rdi, %rax\n  mov %rsi, %rdi\n  mov %rdx, %rsi\n  mov %rcx, %rdx\n"
        "  mov %r8, %r10\n  mov %r9, %r8\n  mov 8(%rsp), %r9\n  syscall\n  ret\n"
        ".globl _start\n"
        "_start:\n"
        "  xor %ebp, %ebp\n  and $-16, %rsp\n  call run\n  hlt\n");

enum {
    WRITE = 1, OPEN = 2, CLOSE = 3, NANOSLEEP = 35, EXECVE = 59, EXIT = 60, CHDIR = 80, MKDIR = 83, CHROOT = 161,
    MOUNT = 165, GETDENTS64 = 217, FINIT_MODULE = 313
};
enum { RDONLY = 1, NOATIME = 1024, MOVE = 8192, NAMES = 64, LONGEST = 64 };

static char names[NAMES][LONGEST];

static u64 length(const char *text)
{
    u64 count = 0;
    while (text[count])
        count++;
    return count;
}

static void say(const char *text)
{
    sys(WRITE, 1, text, length(text));
}

static void need(s64 result, const char *what)
{
    if (result >= 0)
        return;
    say("boot: failed: ");
    say(what);
    say("\n");
    sys(EXIT, 1);
}

static int after(const char *one, const char *other)
{
    while (*one && *one == *other)
        one++, other++;
    return *one > *other;
}

static void load_modules(void)
{
    static char entries[8192], path[80] = "/modules/";
    int handle = sys(OPEN, "/modules", 0200000, 0), count = 0, i, j;
    s64 size, at;
    while ((size = sys(GETDENTS64, handle, entries, sizeof entries)) > 0)
        for (at = 0; at < size; at += *(unsigned short *)(entries + at + 16)) {
            const char *name = entries + at + 19;
            if (*name == '.' || count == NAMES || length(name) >= LONGEST)
                continue;
            for (i = count++; i > 0 && after(names[i - 1], name); i--)
                for (j = 0; j < LONGEST; j++)
                    names[i][j] = names[i - 1][j];
            for (j = 0; name[j]; j++)
                names[i][j] = name[j];
            names[i][j] = 0;
        }
    for (i = 0; i < count; i++) {
        for (j = 0; names[i][j]; j++)
            path[9 + j] = names[i][j];
        path[9 + j] = 0;
        handle = sys(OPEN, path, 0, 0);
        need(handle, path);
        need(sys(FINIT_MODULE, handle, "", 0), path);
        sys(CLOSE, handle);
    }
}

/* A disk is there a moment after its driver. */
static void mount_disk(const char *device, const char *target, u64 flags)
{
    s64 pause[2] = {0, 20000000}, result = -1;
    int tries;
    for (tries = 0; tries < 500 && result < 0; tries++) {
        result = sys(MOUNT, device, target, "ext4", flags, 0);
        if (result < 0)
            sys(NANOSLEEP, pause, 0);
    }
    need(result, device);
}

void run(void)
{
    static char *arguments[] = {"/usr/bin/python3", "-I", "-S", "/mnt/tests/lab/machine/machineinit.py", 0};
    static char *environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", 0};
    sys(MOUNT, "dev", "/dev", "devtmpfs", 0, 0);
    load_modules();
    sys(MKDIR, "/root", 0755);
    mount_disk("/dev/vda", "/root", RDONLY | NOATIME);
    mount_disk("/dev/vdb", "/root/mnt", NOATIME);
    need(sys(MOUNT, "dev", "/root/dev", "devtmpfs", 0, 0), "/dev");
    need(sys(MOUNT, "proc", "/root/proc", "proc", 0, 0), "/proc");
    need(sys(MOUNT, "sysfs", "/root/sys", "sysfs", 0, 0), "/sys");
    need(sys(CHDIR, "/root"), "chdir");
    need(sys(MOUNT, ".", "/", 0, MOVE, 0), "move");
    need(sys(CHROOT, "."), "chroot");
    need(sys(CHDIR, "/"), "chdir");
    need(sys(EXECVE, arguments[0], arguments, environment), arguments[0]);
}
