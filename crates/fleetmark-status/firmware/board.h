#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

/* Writes text where the debugger or qemu reads it. */
void board_write(const char *text);

/* Ends the program: 0 for success. */
void board_end(int code);

/* How much of the stack was used so far, in octets. */
uint32_t board_stack_used(void);

#endif
