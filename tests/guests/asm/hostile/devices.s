# Hostile cases: each device driven beyond what it is for. Storms end by a count of the guest's own.

.set LAPIC, 0xfee00000
.set IOAPIC, 0xfec00000
.set VEC_STORM, 0x51
.set STORM, 3000
.set TEST_LINE, 0x2010                  # an interrupt line that no device has (QEMU's pc-testdev)

.text
# A hook that counts, ends the interrupt, and ends the storm when it is long enough.
on_storm:
    movl $0, LAPIC + 0xb0
    incl storms
    cmpl $STORM, storms
    jb 1f
    andl $~EFLAGS_IF, FRAME_EFLAGS(%ebp)
1:  ret

# Waits for the storm's end. The wait is bounded in case no interrupt comes.
await_storm:
    movl $0x1ff, LAPIC + 0xf0
    movl $10000000, %ecx
    sti
1:  pushfl
    testl $EFLAGS_IF, (%esp)
    leal 4(%esp), %esp
    loopnz 1b
    cli
    ret

apic_timer_storm:                       # a period of one nanosecond, in each mode
    hook VEC_STORM, on_storm
    movl $0x0b, LAPIC + 0x3e0
    movl $0x20000 | VEC_STORM, LAPIC + 0x320
    movl $1, LAPIC + 0x380
    call await_storm
    movl $0x60000 | VEC_STORM, LAPIC + 0x320
    movl $0xffffffff, LAPIC + 0x380
    movl LAPIC + 0x390, %eax
    movl $0x10000, LAPIC + 0x320
    movl $0, LAPIC + 0x380
    ret

self_ipi_storm:                         # each interrupt sends the next, and an NMI
    hook VEC_STORM, send_next
    hook 2, send_nmi
    movl $0x44000 | VEC_STORM, LAPIC + 0x300
    jmp await_storm
send_next:
    movl $0x44000 | VEC_STORM, LAPIC + 0x300
    movl $0x4400, LAPIC + 0x300
    jmp on_storm
send_nmi:
    incl storms
    cmpl $STORM, storms
    jae 1f
    movl $0x4400, LAPIC + 0x300
1:  ret

stuck_line:                             # a level that nobody takes back, with every trigger mode and destination
    hook VEC_STORM, on_storm
    movl $0x0001a000 | VEC_STORM, %ebx
    call redirect
    movw $TEST_LINE, %dx
    movb $1, %al
    outb %al, %dx
    movl $0x0000a000 | VEC_STORM, %ebx
    call redirect
    movl $0x00008000 | VEC_STORM, %ebx
    call redirect
    call await_storm
    xorl %ebx, %ebx
1:  call redirect
    addl $0x0137, %ebx
    cmpl $0x00020000, %ebx
    jb 1b
    movl $0x00010000, %ebx
    call redirect
    movw $TEST_LINE, %dx
    xorl %eax, %eax
    outb %al, %dx
    ret
redirect:                               # EBX: the low half of the entry of input 16
    movl $0x10 + 2 * 16, IOAPIC
    movl %ebx, IOAPIC + 0x10
    ret

timer_reloads:                          # reloads of 0 and 1 in each mode, thousands of times, with the interrupt on
    hook VEC_IRQ0, on_tick
    movb $0xfe, %al
    outb %al, $PIC1 + 1
    sti
    movl $5000, %esi
1:  movl %esi, %eax
    andb $0x0e, %al                     # modes 0 to 7
    orb $0x30, %al
    outb %al, $PIT + 3
    movl %esi, %eax
    shrl $4, %eax
    andb $1, %al
    outb %al, $PIT
    xorb %al, %al
    outb %al, $PIT
    movl %esi, %eax
    orb $0xc0, %al                      # read back
    outb %al, $PIT + 3
    inb $PIT, %al
    decl %esi
    jnz 1b
    cli
    jmp pic_init

keyboard_storm:                         # every command and parameter, but those that reset the machine
    xorl %esi, %esi
1:  movl %esi, %eax
    cmpb $0xd1, %al                     # the output port has the reset line
    je 2f
    cmpb $0xf0, %al                     # pulses
    jae 2f
    outb %al, $0x64
    movl %esi, %eax
    movb %ah, %al
    outb %al, $0x60
    inb $0x60, %al
    inb $0x64, %al
2:  incl %esi
    cmpl $0x2000, %esi
    jne 1b
    ret

disk_storm:                             # every command at wild sectors, on both drives of both channels, and long transfers
    movw $0x1f0, %bx
1:  xorl %esi, %esi
2:  leal 2(%ebx), %edx
    movl $5, %ecx
    movl %esi, %eax
    notl %eax
3:  outb %al, %dx                       # count, sector, cylinder, drive
    incl %edx
    shll $1, %eax
    loop 3b
    movl %esi, %eax
    outb %al, %dx
    movl %ebx, %edx
    movl $300, %ecx
    movl $scratch, %edi
    pushl %esi
    movl %edi, %esi
    rep
    outsl
    movl $3000, %ecx
    rep
    insw
    popl %esi
    leal 0x206(%ebx), %edx
    movl %esi, %eax
    outb %al, %dx
    inb %dx, %al
    incl %esi
    cmpl $0x200, %esi
    jne 2b
    cmpw $0x170, %bx
    movw $0x170, %bx
    jne 1b
    ret

device_memory:                          # accesses of every width and place to the APICs' pages and beyond
    movl $LAPIC, %ebx
    call all_widths
    movl $IOAPIC, %ebx
    call all_widths
    movl $0xff000000, %ebx
    call all_widths
    movl $0xfff00000, %ebx
all_widths:
    movl $0x400, %ecx
1:  movb (%ebx), %al
    movb %al, (%ebx)
    movw 1(%ebx), %ax
    movw %ax, 1(%ebx)
    movl 3(%ebx), %eax
    movl %eax, 2(%ebx)
    lock
    xaddl %eax, (%ebx)
    lock
    orl $0x10000, (%ebx)
    bts $7, (%ebx)
    pushl (%ebx)
    popl (%ebx)
    addl $13, %ebx
    loop 1b
    andl $0xfffff000, %ebx
    leal 0x0ffc(%ebx), %edi             # over the page's end
    movl $scratch, %esi
    movl $8, %ecx
    rep
    movsw
    leal 0x0ffd(%ebx), %esi
    movl $scratch, %edi
    movl $8, %ecx
    rep
    movsl
    ret

.bss
.balign 4
storms: .space 4
scratch: .space 0x2000
