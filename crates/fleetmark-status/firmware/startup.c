/* Starts main on a Cortex-M, and gives it a voice: semihosting, which qemu and debuggers answer. */
#include "board.h"

extern uint32_t _stack_top[], _bss[], _bss_end[], _data[], _data_end[], _data_load[];
extern int main(void);

static int semihosting(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void board_write(const char *text)
{
    semihosting(0x04, text); /* SYS_WRITE0 */
}

void board_end(int code)
{
    /* SYS_EXIT: ADP_Stopped_ApplicationExit, or a run-time error. */
    semihosting(0x18, (const void *)(code == 0 ? 0x20026 : 0x20023));
    for (;;) {
    }
}

#define UNTOUCHED 0xa5a5a5a5u

uint32_t board_stack_used(void)
{
    const uint32_t *at = _bss_end;
    while (at < _stack_top && *at == UNTOUCHED) {
        at++;
    }
    return (uint32_t)((const char *)_stack_top - (const char *)at);
}

void reset(void);

void reset(void)
{
    for (uint32_t *from = _data_load, *to = _data; to < _data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = _bss; to < _bss_end;) {
        *to++ = 0;
    }
    uint32_t *here;
    __asm__ volatile("mov %0, sp" : "=r"(here));
    for (uint32_t *to = _bss_end; to < here; to++) {
        *to = UNTOUCHED;
    }
    board_end(main());
}

static void fault(void)
{
    board_write("FAIL fault\n");
    board_end(1);
}

__attribute__((section(".vectors"), used)) static const void *const vectors[] = {
    _stack_top, (const void *)reset, (const void *)fault, (const void *)fault,
};
