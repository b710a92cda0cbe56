# The other devices of a PC: interrupts of the clock, the keyboard controller and the serial port, the ROM's tables,
# the PCI ports.

.set RTC, 0x70
.set VEC_KEYBOARD, 0x21
.set VEC_SERIAL, 0x24
.set VEC_RTC, 0x28
.set VEC_SPURIOUS, 0x2f

# cmos index, value: writes a register of the clock.
.macro cmos index:req, value:req
    movb $\index, %al
    outb %al, $RTC
    movb $\value, %al
    outb %al, $RTC + 1
.endm
# Reads one into EAX.
.macro cmos_get index:req
    movb $\index, %al
    outb %al, $RTC
    inb $RTC + 1, %al
    movzbl %al, %eax
.endm

guest_main:
    plan 25
    call clock
    call keyboard
    call serial
    call tables
    call pci
    ret

clock:
    hook VEC_RTC, on_clock
    hook VEC_SPURIOUS, on_spurious      # a request that was taken back may leave one
    movb $0xfb, %al
    outb %al, $PIC1 + 1
    movb $0xfe, %al
    outb %al, $PIC2 + 1
    cmos 0x0a, 0x26                     # 1024 Hz
    cmos_get 0x0c
    cmos 0x0b, 0x42                     # periodic, 24 hours
    sti
1:  cmpl $20, clock_count
    jb 1b
    cli
    movl clock_flags, %eax
    andl $0xc0, %eax
    check_eq "the clock's periodic interrupt comes", %eax, $0xc0
    cmos 0x0b, 0x12                     # update ended
    cmos_get 0x0c
    movl $0, clock_count
    movl $0, clock_flags
    sti
2:  testb $0x10, clock_flags
    jz 2b
    cli
    movl clock_flags, %eax
    andl $0x90, %eax
    check_eq "... and the one at the end of an update", %eax, $0x90
    cmos 0x01, 0xc0                     # an alarm at every second
    cmos 0x03, 0xc0
    cmos 0x05, 0xc0
    cmos 0x0b, 0x22
    cmos_get 0x0c
    movl $0, clock_count
    movl $0, clock_flags
    sti
3:  testb $0x20, clock_flags
    jz 3b
    cli
    movl clock_flags, %eax
    andl $0xa0, %eax
    check_eq "... and the alarm", %eax, $0xa0
    cmos 0x0b, 0x02
    cmos_get 0x0c
    cmos_get 0x0d
    check_eq "the clock is valid", %eax, $0x80
    movb $0xff, %al
    outb %al, $PIC1 + 1
    outb %al, $PIC2 + 1
    cmos_get 0x0a
    andl $0x7f, %eax
    check_eq "register A reads back", %eax, $0x26
    xorl %eax, %eax
    cmos_get 0x32
    cmpl $0x20, %eax
    sete %al
    movzbl %al, %eax
    check_eq "it is the 21st century", %eax, $1
    ret

on_clock:
    incl clock_count
    cmos_get 0x0c
    orl %eax, clock_flags
    movb $0x20, %al
    outb %al, $PIC2
    outb %al, $PIC1
    ret

on_spurious:
    movb $0x20, %al
    outb %al, $PIC1                     # the second 8259 has nothing in service
    ret

# The controller's echo command (0xd2) acts as if a key had been pressed.
keyboard:
    call empty
    movb $0xaa, %al
    outb %al, $0x64
    call wait_key
    check_eq "the keyboard controller's self-test", %eax, $0x55
    call wait_taken
    movb $0x60, %al
    outb %al, $0x64
    call wait_taken
    movb $0x61, %al                     # interrupt 1, translation, no mouse
    outb %al, $0x60
    call wait_taken
    movb $0x20, %al
    outb %al, $0x64
    call wait_key
    andl $0x41, %eax
    check_eq "its configuration reads back", %eax, $0x41
    movb $0xee, %al
    outb %al, $0x60
    call wait_key
    check_eq "the keyboard echoes", %eax, $0xee
    hook VEC_KEYBOARD, on_key
    movb $0xfd, %al
    outb %al, $PIC1 + 1
    sti                                 # QEMU still has the request of the bytes that were polled
    call long_enough
    movl $0, key_count
    movl $0, keys
    call wait_taken
    movb $0xd2, %al
    outb %al, $0x64
    call wait_taken
    movb $0x1e, %al
    outb %al, $0x60
1:  cmpl $1, key_count
    jb 1b
    call wait_taken
    movb $0xd2, %al
    outb %al, $0x64
    call wait_taken
    movb $0x9e, %al
    outb %al, $0x60
2:  cmpl $2, key_count
    jb 2b
    cli
    check_eq "keys interrupt", keys, $0x1e9e
    check_eq "... once each", key_count, $2
    movb $0xff, %al
    outb %al, $PIC1 + 1
    call wait_taken
    movb $0xd4, %al                     # the next byte is for the mouse: reset
    outb %al, $0x64
    call wait_taken
    movb $0xff, %al
    outb %al, $0x60
    call wait_mouse
    check_eq "the mouse acknowledges its reset", %eax, $0xfa
    call wait_mouse
    check_eq "... passes its self-test", %eax, $0xaa
    call wait_mouse
    check_eq "... and says that it is a plain mouse", %eax, $0
    ret

on_key:
    incl key_count
    inb $0x60, %al
    movzbl %al, %eax
    shll $8, keys
    orl %eax, keys
    movb $0x20, %al
    outb %al, $PIC1
    ret

empty:
1:  inb $0x64, %al
    testb $1, %al
    jz 2f
    inb $0x60, %al
    jmp 1b
2:  ret

# A byte of the output buffer, in EAX.
wait_key:
1:  inb $0x64, %al
    testb $1, %al
    jz 1b
    inb $0x60, %al
    movzbl %al, %eax
    ret

# The same from the mouse.
wait_mouse:
1:  inb $0x64, %al
    andb $0x21, %al
    cmpb $0x21, %al
    jne 1b
    inb $0x60, %al
    movzbl %al, %eax
    ret

wait_taken:
1:  inb $0x64, %al
    testb $2, %al
    jnz 1b
    ret

# The interrupt of the transmitter.
serial:
    call serial_sent
    hook VEC_SERIAL, on_serial
    movb $0xef, %al
    outb %al, $PIC1 + 1
    movw $COM1 + 4, %dx
    movb $0x0b, %al                     # DTR, RTS, OUT2
    outb %al, %dx
    movw $COM1 + 1, %dx
    movb $0x02, %al
    outb %al, %dx
    sti
1:  cmpl $1, serial_count
    jb 1b
    cli
    check_eq "the transmitter's interrupt when it is enabled", serial_cause, $0x02
    movw $COM1 + 1, %dx
    xorl %eax, %eax
    outb %al, %dx
    movb $0xff, %al
    outb %al, $PIC1 + 1
    ret

on_serial:
    incl serial_count
    movw $COM1 + 2, %dx
    inb %dx, %al
    andl $0x0f, %eax
    movl %eax, serial_cause
    movb $0x20, %al
    outb %al, $PIC1
    ret

serial_sent:
    movw $COM1 + 5, %dx
1:  inb %dx, %al
    testb $0x40, %al
    jz 1b
    ret

long_enough:
    movl $100000, %ecx
1:  pause
    loop 1b
    ret

# The MP floating pointer is in the ROM and leads to a table.
tables:
    movl $0xf0000, %esi
1:  cmpl $0x5f504d5f, (%esi)
    je 2f
    addl $16, %esi
    cmpl $0x100000, %esi
    jb 1b
2:  movl $16, %ecx
    call sum
    check_eq "there is an MP pointer with a good sum", %eax, $0
    movl 4(%esi), %edi
    check_eq "... which leads to a table", (%edi), $0x504d4350
    movl %edi, %esi
    movzwl 4(%esi), %ecx
    call sum
    check_eq "... with a good sum", %eax, $0
    check_eq "... which names the local APIC", 36(%edi), $0xfee00000
    movl $0xf0000, %esi
3:  cmpl $0x20445352, (%esi)            # "RSD PTR "
    jne 4f
    cmpl $0x20525450, 4(%esi)
    je 5f
4:  addl $16, %esi
    cmpl $0x100000, %esi
    jb 3b
5:  movl $20, %ecx
    call sum
    check_eq "there is an ACPI pointer with a good sum", %eax, $0
    movl (%esi), %eax
    movl $0, (%esi)
    cmpl (%esi), %eax
    sete %al
    movzbl %al, %eax
    check_eq "the ROM cannot be written", %eax, $1
    ret

# ESI, ECX: the sum of so many bytes, in EAX.
sum:
    pushl %esi
    xorl %eax, %eax
1:  addb (%esi), %al
    incl %esi
    loop 1b
    popl %esi
    ret

pci:
    movw $0xcf8, %dx
    movl $0x80000000, %eax
    outl %eax, %dx
    inl %dx, %eax
    check_eq "the PCI address register is there", %eax, $0x80000000
    movw $0xcfc, %dx
    inw %dx, %ax
    movzwl %ax, %eax
    check_eq "... and a host bridge", %eax, $0x8086
    movw $0xcf8, %dx
    movl $0x80000800, %eax
    outl %eax, %dx
    movw $0xcfc, %dx
    inl %dx, %eax
    check_eq "... and a PIIX3", %eax, $0x70008086
    movw $0xcf8, %dx
    movl $0x8000ff00, %eax
    outl %eax, %dx
    movw $0xcfc, %dx
    inl %dx, %eax
    check_eq "... and no device 31", %eax, $0xffffffff
    ret

.bss
.balign 4
clock_count: .space 4
clock_flags: .space 4
key_count: .space 4
keys: .space 4
serial_count: .space 4
serial_cause: .space 4
