# Multiboot1 header, entry, and the way out.

.section .multiboot, "a"
.balign 4
    .long 0x1badb002
    .long 0x00000003                    # modules page-aligned, memory map wanted
    .long -(0x1badb002 + 0x00000003)

.text
.globl _start
_start:
    cli
    cld
    pushl $_start                       # to the loader's stack, for the guest that looks at it
    popl boot_stack
    movw %cs, boot_code
    movw %ss, boot_data
    sgdt boot_table
    movl $stack_top, %esp
    movl %eax, boot_magic
    movl %ebx, boot_info
    call serial_init
    call segments_init
    call pic_init                       # the BIOS leaves the timer running and unmasked
    cmpl $0x2badb002, boot_magic
    jne 1f
    call copy_command_line
    call guest_main
    call tap_finish                     # EAX: status
    jmp exit
1:  say "Bail out! not started by a multiboot loader\n"
    movl $4, %eax

# Ends the guest with the status in EAX, on QEMU (debug exit), on Bochs (shutdown port), and at worst by waiting.
.globl exit
exit:
    cli
    movl %eax, %ebx
    movw $COM1 + 5, %dx
1:  inb %dx, %al                        # the last byte must have left the UART
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
3:  hlt
    jmp 3b

# The loader's information may lie anywhere, so what is needed is copied first.
copy_command_line:
    movl boot_info, %ebx
    testl $4, (%ebx)
    jz 2f
    movl 16(%ebx), %esi
    movl $command_line, %edi
    movl $255, %ecx
1:  lodsb
    stosb
    testb %al, %al
    loopnz 1b
2:  ret

.section .rodata
shutdown_word: .ascii "Shutdown"

.bss
.balign 4
boot_magic: .space 4
.globl boot_info
boot_info: .space 4
.globl boot_stack, boot_code, boot_data, boot_table
boot_stack: .space 4                    # _start, if it was one
boot_code: .space 4
boot_data: .space 4
boot_table: .space 8
.globl command_line
command_line: .space 256
.balign 4096
stack: .space 16384
.globl stack_top
stack_top:
