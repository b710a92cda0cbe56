# COM1, polled, 115200 8N1, and printing.

.text
serial_init:
    pushl %esi
    movl $serial_settings, %esi
1:  movzwl (%esi), %edx
    testl %edx, %edx
    jz 2f
    movb 2(%esi), %al
    outb %al, %dx
    addl $3, %esi
    jmp 1b
2:  popl %esi
    ret

.section .rodata
serial_settings:                        # port, value
    .word COM1 + 1
    .byte 0x00                          # no interrupts
    .word COM1 + 3
    .byte 0x80                          # divisor latch open
    .word COM1 + 0
    .byte 0x01                          # 115200 baud
    .word COM1 + 1
    .byte 0x00
    .word COM1 + 3
    .byte 0x03                          # 8N1, latch closed
    .word COM1 + 2
    .byte 0x07                          # FIFO on and empty
    .word COM1 + 4
    .byte 0x03                          # DTR, RTS
    .word 0

.text
# Prints the character in AL.
.globl print_char
print_char:
    pushl %eax
    pushl %edx
    movb %al, %ah
    movw $COM1 + 5, %dx
1:  inb %dx, %al
    testb $0x20, %al
    jz 1b
    movb %ah, %al
    movw $COM1, %dx
    outb %al, %dx
    popl %edx
    popl %eax
    ret

# Prints the zero-terminated text at EAX.
.globl print
print:
    pushl %eax
    pushl %esi
    movl %eax, %esi
1:  lodsb
    testb %al, %al
    jz 2f
    call print_char
    jmp 1b
2:  popl %esi
    popl %eax
    ret

# Prints EAX as 0x and eight digits.
.globl print_hex
print_hex:
    pushl %eax
    pushl %ecx
    pushl %edx
    say "0x"
    movl %eax, %edx
    movl $8, %ecx
1:  roll $4, %edx
    movl %edx, %eax
    andl $15, %eax
    movb hex_digits(%eax), %al
    call print_char
    loop 1b
    popl %edx
    popl %ecx
    popl %eax
    ret

# Prints EAX as an unsigned decimal number.
.globl print_decimal
print_decimal:
    pushl %eax
    pushl %ebx
    pushl %ecx
    pushl %edx
    movl $10, %ebx
    xorl %ecx, %ecx
1:  xorl %edx, %edx
    divl %ebx
    pushl %edx
    incl %ecx
    testl %eax, %eax
    jnz 1b
2:  popl %eax
    addb $'0', %al
    call print_char
    loop 2b
    popl %edx
    popl %ecx
    popl %ebx
    popl %eax
    ret

.section .rodata
hex_digits: .ascii "0123456789abcdef"
