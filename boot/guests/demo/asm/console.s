# COM1 and the ways out.

.set COM1, 0x3f8

# say "text": prints it.
.macro say text
    .pushsection .rodata
.Ltext_\@: .asciz "\text"
    .popsection
    pushl %eax
    movl $.Ltext_\@, %eax
    call print
    popl %eax
.endm

.text
function console_init
    movl $console_settings, %esi
1:  movzwl (%esi), %edx
    testl %edx, %edx
    jz 2f
    movb 2(%esi), %al
    outb %al, %dx
    addl $3, %esi
    jmp 1b
2:  ret

# Prints the character in AL.
function print_char
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

# Prints the text at EAX.
function print
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
function print_hex
    pushl %eax
    pushl %ecx
    pushl %edx
    movl %eax, %edx
    movb $'0', %al
    call print_char
    movb $'x', %al
    call print_char
    movl $8, %ecx
1:  roll $4, %edx
    movl %edx, %eax
    andl $15, %eax
    addl $digits, %eax
    movb (%eax), %al
    call print_char
    loop 1b
    popl %edx
    popl %ecx
    popl %eax
    ret

# Ends the machine with the status in EAX: QEMU's debug exit, then Bochs' shutdown port.
function power_off
    movl %eax, %ebx
    movw $COM1 + 5, %dx
1:  inb %dx, %al                        # the last byte must have left
    testb $0x40, %al
    jz 1b
    movl %ebx, %eax
    movw $0xf4, %dx
    outl %eax, %dx
    movl $shutdown_word, %esi
    movl $8, %ecx
    movw $0x8900, %dx
2:  lodsb
    outb %al, %dx
    loop 2b
3:  cli
    hlt
    jmp 3b

.section .rodata
console_settings:                       # port, value: 115200 8N1, FIFO on
    .word COM1 + 1
    .byte 0x00
    .word COM1 + 3
    .byte 0x80
    .word COM1
    .byte 0x01
    .word COM1 + 1
    .byte 0x00
    .word COM1 + 3
    .byte 0x03
    .word COM1 + 2
    .byte 0x07
    .word COM1 + 4
    .byte 0x03
    .word 0
digits: .ascii "0123456789abcdef"
shutdown_word: .ascii "Shutdown"
