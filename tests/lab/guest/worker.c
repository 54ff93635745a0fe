/* SPDX-FileCopyrightText: 2026 crosscluster contributors
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * /init of the lab's guest: the whole user space, in one static program of raw system calls without a C library.
 *
 *   tcc -static -nostdlib -o worker worker.c
 *   gcc -O2 -static -nostdlib -ffreestanding -fno-stack-protector -fno-pie -no-pie -o worker worker.c
 *
 * It loads the modules below /modules in the order of their names and forks one process per job; they share one page.
 *   heartbeat   "HB <seq> <monotonic ms> <realtime ms>" on the serial port, every hb= ms (10)
 *   recorders   one per disk: a record into the next slot of a ring, O_DIRECT|O_DSYNC and fdatasync, then
 *               "ACK <disk> <seq>"; every rec= ms (20), slots= slots (2048)
 *   dirtier     random bytes into every 64 bytes of the pages of a set= MiB (16) working set, rate= MiB/s (0)
 *   commands    lines on the serial port: dN dirty MiB/s, rN record interval ms (0 stops), hN heartbeat ms,
 *               aA.B.C.D/N address of eth0, m<text> prints "MARK <text>", s status, p power off, b reboot
 *   button      the ACPI power button;  agent: the guest agent calls that Proxmox makes
 *
 * On a disk: the first MiB is left alone; at 1 MiB a header sector ("CCLDISK1", number, slots), then the ring.
 * A record (512 bytes): "CCLR", u32 disk, u64 seq, u64 monotonic ms, filler, u32 crc32 of the first 508 bytes.
 * Disks keep their number and their sequence over reboots: both are read back from the disk.
 */

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long u64;
typedef long s64;

/* Arguments of a system call by file-level assembler: both compilers take it, register variables only one. */
s64 sys(s64 number, ...);
__asm__(".globl sys\n"
        "sys:\n"
        "  mov %rdi, %rax\n  mov %rsi, %rdi\n  mov %rdx, %rsi\n  mov %rcx, %rdx\n"
        "  mov %r8, %r10\n  mov %r9, %r8\n  mov 8(%rsp), %r9\n  syscall\n  ret\n"
        ".globl _start\n"
        "_start:\n"
        "  xor %ebp, %ebp\n  mov %rsp, %rdi\n  and $-16, %rsp\n  call run\n  hlt\n");

enum {
    READ = 0, WRITE = 1, OPEN = 2, CLOSE = 3, LSEEK = 8, MMAP = 9, IOCTL = 16, PREAD = 17, PWRITE = 18, PAUSE = 34,
    SOCKET = 41, FORK = 57, EXIT = 60, WAIT4 = 61, FDATASYNC = 75, MKDIR = 83, SETPRIORITY = 141, SYNC = 162,
    MOUNT = 165, REBOOT = 169, GETDENTS64 = 217, CLOCK_GETTIME = 228, CLOCK_NANOSLEEP = 230, FINIT_MODULE = 313
};
enum { O_RDWR_ = 2, O_NOCTTY_ = 0400, O_DIRECT_ = 040000, O_DSYNC_ = 010000, O_DIRECTORY_ = 0200000 };
enum { MONOTONIC = 1, REALTIME = 0, DISKS = 8, SECTOR = 512, RING_START = 1 << 20 };

struct shared {
    volatile int dirty_mib, record_ms, heartbeat_ms, frozen, off, disks;
    volatile u64 heartbeats, acknowledged[DISKS];
};

static struct shared *shared;
static int tty = -1, slots = 2048, set_mib = 16;
static u8 sector[SECTOR * 3 + 4096];

void *memset(void *to, int value, u64 size)
{
    u8 *at = to;
    while (size--)
        *at++ = value;
    return to;
}

void *memcpy(void *to, const void *from, u64 size)
{
    u8 *at = to;
    const u8 *source = from;
    while (size--)
        *at++ = *source++;
    return to;
}

static u64 length(const char *text)
{
    u64 count = 0;
    while (text[count])
        count++;
    return count;
}

static int starts(const char *text, const char *with)
{
    while (*with)
        if (*text++ != *with++)
            return 0;
    return 1;
}

static const char *find(const char *text, const char *what)
{
    for (; *text; text++)
        if (starts(text, what))
            return text + length(what);
    return 0;
}

static s64 number(const char *text)
{
    s64 value = 0;
    while (*text >= '0' && *text <= '9')
        value = value * 10 + (*text++ - '0');
    return value;
}

static char *put(char *at, const char *text)
{
    while (*text)
        *at++ = *text++;
    return at;
}

static char *put_number(char *at, u64 value)
{
    char digits[24];
    int count = 0;
    do
        digits[count++] = '0' + value % 10;
    while (value /= 10);
    while (count)
        *at++ = digits[--count];
    return at;
}

/* One line in one write: the terminal keeps writes apart, so lines of different processes never mix. */
static void say(const char *word, u64 a, u64 b, u64 c, int numbers)
{
    char line[128], *at = put(line, word);
    if (numbers > 0) {
        *at++ = ' ';
        at = put_number(at, a);
    }
    if (numbers > 1) {
        *at++ = ' ';
        at = put_number(at, b);
    }
    if (numbers > 2) {
        *at++ = ' ';
        at = put_number(at, c);
    }
    *at++ = '\n';
    sys(WRITE, tty, line, at - line);
}

static u64 now_ms(int clock)
{
    s64 time[2];
    sys(CLOCK_GETTIME, clock, time);
    return time[0] * 1000 + time[1] / 1000000;
}

static void sleep_until(u64 *due_ms, u64 step_ms)
{
    s64 time[2];
    u64 now = now_ms(MONOTONIC);
    *due_ms += step_ms;
    if (*due_ms <= now) { /* late: no burst to catch up */
        *due_ms = now;
        return;
    }
    time[0] = *due_ms / 1000;
    time[1] = *due_ms % 1000 * 1000000;
    sys(CLOCK_NANOSLEEP, MONOTONIC, 1, time, 0);
}

static void sleep_ms(u64 ms)
{
    u64 due = now_ms(MONOTONIC);
    sleep_until(&due, ms);
}

static u32 crc32(const u8 *data, u32 size)
{
    static u32 table[256];
    u32 crc = ~0u, i, bit, value;
    if (!table[1])
        for (i = 0; i < 256; i++) {
            for (value = i, bit = 0; bit < 8; bit++)
                value = value & 1 ? value >> 1 ^ 0xEDB88320u : value >> 1;
            table[i] = value;
        }
    while (size--)
        crc = table[(crc ^ *data++) & 255] ^ crc >> 8;
    return ~crc;
}

static void power(int reboot)
{
    shared->off = 1;
    say(reboot ? "REBOOT" : "POWEROFF", 0, 0, 0, 0);
    sys(SYNC);
    sleep_ms(20);
    sys(REBOOT, 0xfee1dead, 672274793, reboot ? 0x01234567 : 0x4321fedc, 0);
}

/* ---- jobs ------------------------------------------------------------------------------------------------------- */

static void heartbeat(void)
{
    u64 due = now_ms(MONOTONIC);
    sys(SETPRIORITY, 0, 0, -10);
    for (;;) {
        u64 seq = shared->heartbeats + 1;
        shared->heartbeats = seq;
        say("HB", seq, now_ms(MONOTONIC), now_ms(REALTIME), 3);
        sleep_until(&due, shared->heartbeat_ms > 0 ? shared->heartbeat_ms : 10);
    }
}

static u8 *aligned(void)
{
    return (u8 *)(((u64)sector + 511) & ~511ul);
}

static int record_valid(const u8 *record, u32 disk)
{
    return starts((const char *)record, "CCLR") && *(u32 *)(record + 4) == disk &&
           *(u32 *)(record + 508) == crc32(record, 508);
}

/* The disk's number and the highest sequence number in its ring; a new disk gets its header. */
static s64 take_disk(int handle, u32 *disk, int *ring)
{
    u8 *buffer = aligned();
    u64 highest = 0;
    int slot;
    if (sys(PREAD, handle, buffer, SECTOR, RING_START) != SECTOR)
        return -1;
    if (starts((char *)buffer, "CCLDISK1")) {
        *disk = *(u32 *)(buffer + 8);
        *ring = *(u32 *)(buffer + 12);
        for (slot = 0; slot < *ring; slot++) {
            if (sys(PREAD, handle, buffer, SECTOR, RING_START + SECTOR + (u64)slot * SECTOR) != SECTOR)
                return -1;
            if (record_valid(buffer, *disk) && *(u64 *)(buffer + 8) > highest)
                highest = *(u64 *)(buffer + 8);
        }
        return highest;
    }
    *ring = slots;
    memset(buffer, 0, SECTOR);
    memcpy(buffer, "CCLDISK1", 8);
    *(u32 *)(buffer + 8) = *disk;
    *(u32 *)(buffer + 12) = *ring;
    return sys(PWRITE, handle, buffer, SECTOR, RING_START) == SECTOR ? 0 : -1;
}

static void record(int handle, u32 disk, int ring, u64 seq)
{
    u8 *buffer = aligned();
    u64 due = now_ms(MONOTONIC), noise = disk * 7919 + 1;
    int i;
    for (;;) {
        int step = shared->record_ms;
        if (step <= 0 || shared->frozen || shared->off) {
            sleep_ms(20);
            due = now_ms(MONOTONIC);
            continue;
        }
        seq++;
        memcpy(buffer, "CCLR", 4);
        *(u32 *)(buffer + 4) = disk;
        *(u64 *)(buffer + 8) = seq;
        *(u64 *)(buffer + 16) = now_ms(MONOTONIC);
        for (i = 24; i < 504; i += 8) {
            noise = noise * 6364136223846793005ul + seq;
            *(u64 *)(buffer + i) = noise;
        }
        *(u32 *)(buffer + 504) = 0;
        *(u32 *)(buffer + 508) = crc32(buffer, 508);
        if (sys(PWRITE, handle, buffer, SECTOR, RING_START + SECTOR + seq % ring * SECTOR) != SECTOR ||
            sys(FDATASYNC, handle) != 0) {
            say("IOERROR", disk, seq, 0, 2);
            seq--;
            sleep_ms(500);
            due = now_ms(MONOTONIC);
            continue;
        }
        shared->acknowledged[disk] = seq;
        say("ACK", disk, seq, 0, 2);
        sleep_until(&due, step);
    }
}

static void dirty(void)
{
    u64 pages = (u64)set_mib << 8, page = 0, random = 88172645463325252ul, due = now_ms(MONOTONIC), owed = 0, last = due;
    u8 *set = (u8 *)sys(MMAP, 0, (u64)set_mib << 20, 3, 0x22, -1, 0);
    if ((s64)set < 0 && (s64)set > -4096)
        return;
    for (;;) {
        u64 elapsed;
        sleep_until(&due, 10);
        elapsed = now_ms(MONOTONIC) - last;
        last += elapsed;
        if (elapsed > 200) /* after a pause: no burst to catch up */
            elapsed = 200;
        owed += (u64)shared->dirty_mib * 256 * elapsed; /* thousandths of pages */
        while (owed >= 1000) {
            u64 at;
            for (at = 0; at < 4096; at += 64) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                *(volatile u64 *)(set + page * 4096 + at) = random;
            }
            page = (page + 1) % pages;
            owed -= 1000;
        }
    }
}

/* a192.0.2.1/24: SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFFLAGS on eth0 */
static void set_address(const char *text)
{
    u8 request[40];
    u8 address[4] = {0, 0, 0, 0};
    int part, prefix = 24, handle = sys(SOCKET, 2, 2, 0);
    for (part = 0; part < 4; part++) {
        address[part] = number(text);
        while (*text >= '0' && *text <= '9')
            text++;
        if (*text == '.')
            text++;
    }
    if (*text == '/')
        prefix = number(text + 1);
    memset(request, 0, sizeof request);
    memcpy(request, "eth0", 4);
    request[16] = 2;
    memcpy(request + 20, address, 4);
    sys(IOCTL, handle, 0x8916, request);
    for (part = 0; part < 4; part++)
        request[20 + part] = prefix >= 8 * (part + 1) ? 255 : prefix <= 8 * part ? 0 : 255 << (8 * (part + 1) - prefix);
    sys(IOCTL, handle, 0x891c, request);
    memset(request + 16, 0, 24);
    request[16] = 0x43; /* UP BROADCAST RUNNING */
    sys(IOCTL, handle, 0x8914, request);
    sys(CLOSE, handle);
}

static void status(void)
{
    int disk;
    say("STATUS heartbeats", shared->heartbeats, 0, 0, 1);
    say("STATUS dirty record heartbeat", shared->dirty_mib, shared->record_ms, shared->heartbeat_ms, 3);
    for (disk = 0; disk < shared->disks; disk++)
        say("STATUS disk", disk, shared->acknowledged[disk], 0, 2);
}

static void command(char *line)
{
    char text[128], *at;
    s64 value = number(line + 1);
    switch (*line) {
    case 'd': shared->dirty_mib = value; break;
    case 'r': shared->record_ms = value; break;
    case 'h': shared->heartbeat_ms = value; break;
    case 'a': set_address(line + 1); break;
    case 's': status(); return;
    case 'p': power(0); return;
    case 'b': power(1); return;
    case 'm':
        at = put(put(text, "MARK "), line + 1);
        *at = 0;
        say(text, 0, 0, 0, 0);
        return;
    default: return;
    }
    text[0] = 'O', text[1] = 'K', text[2] = ' ', text[3] = *line, text[4] = 0;
    say(text, value, 0, 0, 1);
}

static void read_commands(void)
{
    char line[100];
    int used = 0;
    for (;;) {
        char byte;
        if (sys(READ, tty, &byte, 1) != 1) {
            sleep_ms(50);
            continue;
        }
        if (byte == '\n' || byte == '\r') {
            line[used] = 0;
            if (used)
                command(line);
            used = 0;
        } else if (used < (int)sizeof line - 1) {
            line[used++] = byte;
        }
    }
}

static void watch_button(int handle)
{
    u8 event[24];
    for (;;) {
        if (sys(READ, handle, event, 24) != 24)
            return;
        if (event[16] == 1 && event[18] == 116 && event[20] == 1)
            power(0);
    }
}

/* ---- the guest agent, as far as Proxmox uses it ------------------------------------------------------------------ */

static char *agent_reply(char *at, const char *value)
{
    return put(put(put(at, "{\"return\": "), value), "}\n");
}

static void agent_call(int port, const char *call)
{
    char answer[300], *at = answer;
    const char *name = find(call, "\"execute\""), *id;
    if (!name)
        return;
    while (*name == ':' || *name == ' ' || *name == '"')
        name++;
    if (starts(name, "guest-sync")) {
        if (starts(name, "guest-sync-delimited"))
            *at++ = (char)0xff;
        at = put(at, "{\"return\": ");
        id = find(call, "\"id\"");
        while (id && (*id == ':' || *id == ' '))
            id++;
        while (id && *id >= '0' && *id <= '9')
            *at++ = *id++;
        at = put(at, "}\n");
    } else if (starts(name, "guest-ping")) {
        at = agent_reply(at, "{}");
    } else if (starts(name, "guest-fsfreeze-status")) {
        at = agent_reply(at, shared->frozen ? "\"frozen\"" : "\"thawed\"");
    } else if (starts(name, "guest-fsfreeze-freeze")) {
        shared->frozen = 1;
        at = agent_reply(at, "1");
    } else if (starts(name, "guest-fsfreeze-thaw")) {
        shared->frozen = 0;
        at = agent_reply(at, "1");
    } else if (starts(name, "guest-fstrim")) {
        at = agent_reply(at, "{\"paths\": []}");
    } else if (starts(name, "guest-info")) {
        at = agent_reply(at, "{\"version\": \"1.0.0\", \"supported_commands\": []}");
    } else if (starts(name, "guest-network-get-interfaces")) {
        at = agent_reply(at, "[]");
    } else if (starts(name, "guest-shutdown")) {
        power(find(call, "\"reboot\"") != 0); /* answers nothing, as the real one */
    } else {
        at = put(at, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"not in this guest\"}}\n");
    }
    sys(WRITE, port, answer, at - answer);
}

static void agent(int port)
{
    static char call[4096];
    int used = 0, depth = 0;
    for (;;) {
        char byte;
        if (sys(READ, port, &byte, 1) != 1) { /* nobody connected */
            sleep_ms(100);
            continue;
        }
        if (byte == '{')
            depth++;
        if (!depth)
            continue;
        if (used < (int)sizeof call - 1)
            call[used++] = byte;
        if (byte == '}' && --depth == 0) {
            call[used] = 0;
            agent_call(port, call);
            used = 0;
        }
    }
}

/* ---- start ------------------------------------------------------------------------------------------------------ */

static int fork_job(void)
{
    return sys(FORK) == 0;
}

static void load_modules(void)
{
    char path[80];
    u8 entries[4096];
    int count, i, handle = sys(OPEN, "/modules", O_DIRECTORY_, 0);
    s64 size, at;
    int last = -1;
    /* Names begin with two digits: load in their order, whatever the directory's. */
    for (;;) {
        int next = 100;
        char *chosen = 0;
        sys(LSEEK, handle, 0, 0);
        while ((size = sys(GETDENTS64, handle, entries, sizeof entries)) > 0)
            for (at = 0; at < size; at += *(unsigned short *)(entries + at + 16)) {
                char *name = (char *)entries + at + 19;
                int order = name[0] == '.' ? -1 : (int)number(name);
                if (order > last && order < next) {
                    next = order;
                    chosen = path + 9;
                    *put(put(path, "/modules/"), name) = 0;
                }
            }
        if (!chosen)
            break;
        last = next;
        i = sys(OPEN, path, 0, 0);
        count = sys(FINIT_MODULE, i, "", 0);
        if (count && count != -17)
            say(path, -count, 0, 0, 1);
        sys(CLOSE, i);
    }
    sys(CLOSE, handle);
}

static void start_recorders(void)
{
    static const char *patterns[] = {"/dev/sda", "/dev/vda", 0};
    char path[16];
    int kind, letter, tries, found = 0, used[DISKS], handles[DISKS], rings[DISKS], fresh[DISKS];
    u32 numbers[DISKS];
    s64 sequences[DISKS];
    u64 size;
    memset(used, 0, sizeof used);
    for (tries = 0; tries < 100; tries++) { /* SCSI disks are probed in the background */
        int handle = sys(OPEN, "/dev/sda", 0, 0), other = sys(OPEN, "/dev/vda", 0, 0);
        sys(CLOSE, handle);
        sys(CLOSE, other);
        if (handle >= 0 || other >= 0)
            break;
        sleep_ms(20);
    }
    sleep_ms(100);
    for (kind = 0; patterns[kind]; kind++)
        for (letter = 0; letter < DISKS && found < DISKS; letter++) {
            int handle;
            *put(path, patterns[kind]) = 0;
            path[7] = 'a' + letter;
            handle = sys(OPEN, path, O_RDWR_ | O_DIRECT_ | O_DSYNC_, 0);
            if (handle < 0)
                continue;
            if (sys(IOCTL, handle, 0x80081272, &size) || size < 8ul << 20) {
                sys(CLOSE, handle);
                continue;
            }
            handles[found++] = handle;
        }
    /* Known disks first, so that a new one never takes a number that is in use. */
    for (kind = 0; kind < found; kind++) {
        numbers[kind] = ~0u;
        fresh[kind] = sys(PREAD, handles[kind], aligned(), SECTOR, RING_START) != SECTOR ||
                      !starts((char *)aligned(), "CCLDISK1");
        if (!fresh[kind]) {
            sequences[kind] = take_disk(handles[kind], &numbers[kind], &rings[kind]);
            if (numbers[kind] < DISKS)
                used[numbers[kind]] = 1;
        }
    }
    for (kind = 0; kind < found; kind++) {
        if (fresh[kind]) {
            for (numbers[kind] = 0; used[numbers[kind]]; numbers[kind]++)
                ;
            used[numbers[kind]] = 1;
            sequences[kind] = take_disk(handles[kind], &numbers[kind], &rings[kind]);
        }
        if (sequences[kind] < 0 || numbers[kind] >= DISKS)
            continue;
        shared->disks++;
        say("DISK", numbers[kind], rings[kind], sequences[kind], 3);
        if (fork_job())
            record(handles[kind], numbers[kind], rings[kind], sequences[kind]);
    }
}

static void open_terminal(void)
{
    u8 mode[60]; /* struct termios of the kernel: four words of flags, line, control characters */
    u32 *flags = (u32 *)mode;
    tty = sys(OPEN, "/dev/ttyS0", O_RDWR_ | O_NOCTTY_, 0);
    memset(mode, 0, sizeof mode);
    flags[2] = 0x1002 | 060 | 0200 | 04000; /* 115200 8N1, receiver on, no modem lines */
    mode[17 + 6] = 1;                       /* VMIN */
    sys(IOCTL, tty, 0x5402, mode);
}

static void read_arguments(u64 *stack)
{
    char **environment = (char **)(stack + 2 + stack[0]);
    shared->heartbeat_ms = 10;
    shared->record_ms = 20;
    for (; *environment; environment++) { /* what the kernel does not know on its command line arrives here */
        const char *text = *environment;
        if (starts(text, "hb="))
            shared->heartbeat_ms = number(text + 3);
        else if (starts(text, "rec="))
            shared->record_ms = number(text + 4);
        else if (starts(text, "slots="))
            slots = number(text + 6);
        else if (starts(text, "set="))
            set_mib = number(text + 4);
        else if (starts(text, "rate="))
            shared->dirty_mib = number(text + 5);
    }
}

void run(u64 *stack)
{
    char path[32];
    int i, handle;
    shared = (struct shared *)sys(MMAP, 0, 4096, 3, 0x21, -1, 0);
    sys(MKDIR, "/dev", 0755);
    sys(MOUNT, "dev", "/dev", "devtmpfs", 0, 0);
    read_arguments(stack);
    open_terminal();
    say("BOOT", now_ms(MONOTONIC), 0, 0, 1);
    load_modules();
    if (fork_job())
        heartbeat();
    if (fork_job())
        read_commands();
    start_recorders();
    if (fork_job())
        dirty();
    for (i = 0; i < 6; i++) { /* the button is not always the same event device */
        *put(put_number(put(path, "/dev/input/event"), i), "") = 0;
        handle = sys(OPEN, path, 0, 0);
        if (handle >= 0 && fork_job())
            watch_button(handle);
    }
    for (i = 0; i < 8; i++) {
        *put(put_number(put(path, "/dev/vport"), i), "p1") = 0;
        handle = sys(OPEN, path, O_RDWR_, 0);
        if (handle >= 0 && fork_job())
            agent(handle);
    }
    say("READY", shared->disks, 0, 0, 1);
    for (;;)
        if (sys(WAIT4, -1, 0, 0, 0) < 0)
            sys(PAUSE);
}
