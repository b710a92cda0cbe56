# Words of the command line: key=value, separated by spaces.

.text
# EAX: a key with its equals sign. EAX: the address of the value behind it, or 0.
.globl argument
argument:
    pushl %ebx
    pushl %esi
    pushl %edi
    movl %eax, %ebx
    movl $command_line, %esi
1:  movl %ebx, %edi                     # at the start of a word
2:  movb (%edi), %al
    testb %al, %al
    jz 5f                               # the whole key has matched
    cmpb (%esi), %al
    jne 3f
    incl %esi
    incl %edi
    jmp 2b
3:  lodsb                               # to the next word
    testb %al, %al
    jz 4f
    cmpb $' ', %al
    jne 3b
    jmp 1b
4:  xorl %esi, %esi
5:  movl %esi, %eax
    popl %edi
    popl %esi
    popl %ebx
    ret

# EAX: the text of a decimal number. EAX: its value.
.globl number
number:
    pushl %edx
    pushl %esi
    movl %eax, %esi
    xorl %edx, %edx
1:  movzbl (%esi), %eax
    subl $'0', %eax
    cmpl $9, %eax
    ja 2f
    imull $10, %edx, %edx
    addl %eax, %edx
    incl %esi
    jmp 1b
2:  movl %edx, %eax
    popl %esi
    popl %edx
    ret
