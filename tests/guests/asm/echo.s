# Sends back what is typed, slowly, until a byte 0x04 comes. Other than that nothing is printed but the first line.

.set PAUSE, 3000                        # turns of a loop for each byte: longer than a byte takes on the line

guest_main:
    say "ready\n"
1:  movw $COM1 + 5, %dx
    inb %dx, %al
    testb $0x02, %al                    # overrun
    jnz 3f
    testb $0x01, %al
    jz 1b
    movl $PAUSE, %ecx
2:  loop 2b
    movw $COM1, %dx
    inb %dx, %al
    cmpb $0x04, %al
    je 4f
    call print_char
    jmp 1b
3:  say "overrun\n"
    movl $1, %eax
    jmp exit
4:  xorl %eax, %eax
    jmp exit
