/* A QEMU plugin that counts the guest's instructions, and on request its loads and stores.
 *
 * Options: out=FILE (needed), memory=on (counts loads and stores too, several times slower), writes=on (tells of
 * each write(2) as it begins, so that a program that knows of no marks can be counted from record to record).
 * It appends a line at each mark, at each such write, and one at the guest's exit:
 *     mark N INSTRUCTIONS LOADS STORES
 *     write BYTES INSTRUCTIONS LOADS STORES
 *     exit 0 INSTRUCTIONS LOADS STORES
 * A mark is the harmless system call getpriority(PRIO_PROCESS, 0x5ca00000 | N): it fails with ESRCH.
 * Guests of one thread only: the counters are not atomic.
 *
 * Debian ships QEMU 7.2 without qemu-plugin.h, so the declarations used are written out here from the plugin
 * API's documentation ("QEMU TCG Plugins", API version 1).
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
/* Only QEMU_PLUGIN_MEM_RW is used: QEMU 7.2 swaps what the other two select (asked for reads it reports writes,
 * asked for writes, everything), so each access is asked for its own kind. */
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_RW = 3 };

typedef void (*translated)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*at_exit)(qemu_plugin_id_t, void *);
typedef void (*accessed)(unsigned cpu, qemu_plugin_meminfo_t, uint64_t address, void *);
typedef void (*called)(qemu_plugin_id_t, unsigned cpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                       uint64_t, uint64_t, uint64_t);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translated);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *, uint64_t);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, accessed, enum qemu_plugin_cb_flags,
                                      enum qemu_plugin_mem_rw, void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, at_exit, void *);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, called);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

enum { GETPRIORITY_AARCH64 = 141, GETPRIORITY_ARM = 96, WRITE_AARCH64 = 64, WRITE_ARM = 4 };
enum { MARK = 0x5ca00000, MARK_MASK = 0xfff00000u };

static uint64_t instructions, loads, stores;
static bool count_memory, tell_writes;
static FILE *out;

static void report(const char *what, unsigned number)
{
    fprintf(out, "%s %u %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", what, number, instructions, loads, stores);
    fflush(out);
}

static void on_access(unsigned cpu, qemu_plugin_meminfo_t info, uint64_t address, void *unused)
{
    (void)cpu, (void)address, (void)unused;
    if (qemu_plugin_mem_is_store(info))
        stores++;
    else
        loads++;
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(tb);
    qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &instructions, count);
    for (size_t k = 0; count_memory && k < count; k++)
        qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, k), on_access, QEMU_PLUGIN_CB_NO_REGS,
                                         QEMU_PLUGIN_MEM_RW, NULL);
}

static void on_system_call(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t which, uint64_t who, uint64_t a3,
                           uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)cpu, (void)which, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if ((number == GETPRIORITY_AARCH64 || number == GETPRIORITY_ARM) && (who & MARK_MASK) == MARK)
        report("mark", (unsigned)(who & ~MARK_MASK));
    else if (tell_writes && (number == WRITE_AARCH64 || number == WRITE_ARM))
        report("write", (unsigned)a3);
}

static void on_exit(qemu_plugin_id_t id, void *unused)
{
    (void)id, (void)unused;
    report("exit", 0);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info *info, int argc, char **argv)
{
    (void)info;
    for (int k = 0; k < argc; k++) {
        if (strncmp(argv[k], "out=", 4) == 0)
            out = fopen(argv[k] + 4, "a");
        else if (strcmp(argv[k], "memory=on") == 0)
            count_memory = true;
        else if (strcmp(argv[k], "writes=on") == 0)
            tell_writes = true;
    }
    if (out == NULL) {
        fprintf(stderr, "insncount: needs out=FILE, writable\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_system_call);
    qemu_plugin_register_atexit_cb(id, on_exit, NULL);
    return 0;
}
