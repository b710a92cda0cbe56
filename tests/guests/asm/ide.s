# An IDE disk by programmed I/O and, in ide/dma.s, by the bus master, as the master of the primary channel: identification, sectors by LBA28, LBA48 and in blocks,
# interrupts, an absent slave, errors. It needs a disk of at least 64 sectors, which it changes.

.set IDE, 0x1f0
.set CONTROL, 0x3f6
.set VEC_IDE, 0x2e                      # IRQ 14 after pic_init

.set ST_ERR, 0x01
.set ST_DRQ, 0x08
.set ST_DRDY, 0x40
.set ST_BSY, 0x80

# ireg register, value: writes a register of the task file.
.macro ireg register:req, value:req
    movw $IDE + \register, %dx
    movb $\value, %al
    outb %al, %dx
.endm

guest_main:
    plan 31
    hook VEC_IDE, on_ide
    call identify
    call sectors
    call longer
    call blocks
    call interrupts
    call dma
    call refusals
    ret

identify:
    movb $2, %al                        # no interrupts
    movw $CONTROL, %dx
    outb %al, %dx
    ireg 6, 0xa0
    ireg 7, 0xec
    call wait_ready
    andl $ST_ERR | ST_DRQ, %eax
    check_eq "IDENTIFY offers data", %eax, $ST_DRQ
    movl $buffer, %edi
    call read_sector
    movzwl buffer + 2 * 49, %eax
    shrl $9, %eax
    andl $1, %eax
    check_eq "the disk knows LBA", %eax, $1
    xorl %eax, %eax
    cmpl $64, buffer + 2 * 60
    setae %al
    check_eq "... and is large enough", %eax, $1
    movzwl buffer + 2 * 83, %eax
    shrl $10, %eax
    andl $1, %eax
    check_eq "... and knows 48-bit addresses", %eax, $1
    call wait_ready
    andl $ST_ERR | ST_DRQ, %eax
    check_eq "one sector ends it", %eax, $0
    ret

# Sectors 10 to 12 are written and read back.
sectors:
    movl $0x11110000, %eax
    call fill
    movl $10, %ebx
    movl $3, %ecx
    movb $0x30, %al
    call command
    movl $buffer, %esi
    movl $3, %ecx
1:  pushl %ecx
    call wait_ready
    andl $ST_ERR | ST_DRQ, %eax
    cmpl $ST_DRQ, %eax
    je 2f
    movl $0xbad, %edi
2:  movw $IDE, %dx
    movl $256, %ecx
    rep
    outsw
    popl %ecx
    loop 1b
    call wait_ready
    andl $ST_ERR | ST_DRQ, %eax
    check_eq "WRITE SECTORS takes three", %eax, $0
    call wipe
    movl $10, %ebx
    movl $3, %ecx
    movb $0x20, %al
    call command
    movl $buffer, %edi
    call read_sector
    call read_sector
    call read_sector
    movl $0x11110000, %eax
    movl $3 * 128, %ecx
    call compare
    check_eq "READ SECTORS gives them back", %eax, $0
    call wait_ready
    andl $ST_ERR | ST_DRQ, %eax
    check_eq "... and ends", %eax, $0
    movl $11, %ebx
    movl $1, %ecx
    movb $0x20, %al
    call command
    call wait_ready
    movl $buffer, %edi
    movw $IDE, %dx
    movl $128, %ecx
    rep
    insl
    movl $0x11110080, %eax
    movl $128, %ecx
    call compare
    check_eq "doublewords do as well", %eax, $0
    movl $12, %ebx
    movl $1, %ecx
    movb $0x20, %al
    call command
    call wait_ready
    movl $buffer, %edi
    movl $256, %ecx
    movw $IDE, %dx
3:  inw %dx, %ax
    stosw
    loop 3b
    movl $0x11110100, %eax
    movl $128, %ecx
    call compare
    check_eq "... and single words", %eax, $0
    ret

# The same sectors by a 48-bit command.
longer:
    ireg 6, 0xe0
    ireg 2, 0
    ireg 3, 0
    ireg 4, 0
    ireg 5, 0
    ireg 2, 2
    ireg 3, 11
    ireg 4, 0
    ireg 5, 0
    ireg 7, 0x24
    movl $buffer, %edi
    call read_sector
    call read_sector
    movl $0x11110080, %eax
    movl $256, %ecx
    call compare
    check_eq "READ SECTORS EXT", %eax, $0
    ret

# READ and WRITE MULTIPLE in blocks of four sectors.
blocks:
    ireg 2, 4
    ireg 7, 0xc6
    call wait_ready
    andl $ST_ERR, %eax
    check_eq "SET MULTIPLE MODE", %eax, $0
    movl $0x22220000, %eax
    call fill
    movl $30, %ebx
    movl $6, %ecx
    movb $0xc5, %al
    call command
    call wait_ready
    movl $buffer, %esi
    movw $IDE, %dx
    movl $4 * 128, %ecx
    rep
    outsl
    call wait_ready
    movw $IDE, %dx
    movl $2 * 128, %ecx
    rep
    outsl
    call wait_ready
    andl $ST_ERR | ST_DRQ, %eax
    check_eq "WRITE MULTIPLE takes a block of four and one of two", %eax, $0
    call wipe
    movl $30, %ebx
    movl $6, %ecx
    movb $0xc4, %al
    call command
    call wait_ready
    movl $buffer, %edi
    movw $IDE, %dx
    movl $4 * 128, %ecx
    rep
    insl
    call wait_ready
    movw $IDE, %dx
    movl $2 * 128, %ecx
    rep
    insl
    movl $0x22220000, %eax
    movl $6 * 128, %ecx
    call compare
    check_eq "READ MULTIPLE gives them back", %eax, $0
    ireg 7, 0xe7
    call wait_ready
    andl $ST_ERR, %eax
    check_eq "FLUSH CACHE", %eax, $0
    ret

interrupts:
    movw $CONTROL, %dx
    xorl %eax, %eax
    outb %al, %dx
    movb $0xfb, %al                     # the cascade
    outb %al, $PIC1 + 1
    movb $0xbf, %al
    outb %al, $PIC2 + 1
    movl $10, %ebx
    movl $2, %ecx
    movb $0x20, %al
    call command
    movl $buffer, %edi
    sti
1:  cmpl $1, ide_count
    jb 1b
    movw $IDE, %dx
    movl $256, %ecx
    rep
    insw
2:  cmpl $2, ide_count
    jb 2b
    movl $256, %ecx
    rep
    insw
    call settle
    cli
    check_eq "READ SECTORS: one interrupt a sector", ide_count, $2
    movl $0, ide_count
    movl $10, %ebx
    movl $1, %ecx
    movb $0x30, %al
    call command
    call wait_ready
    movl $buffer, %esi
    movw $IDE, %dx
    movl $256, %ecx
    rep
    outsw
    sti
3:  cmpl $1, ide_count
    jb 3b
    call settle
    cli
    check_eq "WRITE SECTORS: one, behind the sector", ide_count, $1
    movb $0xff, %al
    outb %al, $PIC1 + 1
    outb %al, $PIC2 + 1
    ret

refusals:
    ireg 7, 0x02
    call wait_ready
    andl $ST_ERR, %eax
    check_eq "a command that does not exist is an error", %eax, $ST_ERR
    movw $IDE + 1, %dx
    inb %dx, %al
    andl $4, %eax
    check_eq "... called aborted", %eax, $4
    ireg 6, 0xb0
    movw $IDE + 7, %dx
    inb %dx, %al
    movzbl %al, %eax
    andl $ST_BSY | ST_DRQ | ST_ERR | ST_DRDY, %eax
    check_eq "there is no slave", %eax, $0
    ireg 6, 0xa0
    movw $CONTROL, %dx
    movb $4, %al
    outb %al, %dx
    call settle
    movw $CONTROL, %dx
    xorl %eax, %eax
    outb %al, %dx
    call wait_ready
    movw $IDE + 4, %dx
    inb %dx, %al
    movb %al, %ah
    incl %edx
    inb %dx, %al
    movzwl %ax, %eax
    check_eq "a reset leaves the signature of a disk", %eax, $0
    movw $IDE + 2, %dx
    inb %dx, %al
    movzbl %al, %eax
    check_eq "... in all registers", %eax, $1
    ret

on_ide:
    incl ide_count
    movw $IDE + 7, %dx
    inb %dx, %al
    movb $0x20, %al
    outb %al, $PIC2
    outb %al, $PIC1
    ret

# EBX: first sector, ECX: how many, AL: command.
command:
    pushl %eax
    ireg 6, 0xe0
    movw $IDE + 2, %dx
    movb %cl, %al
    outb %al, %dx
    incl %edx
    movb %bl, %al
    outb %al, %dx
    ireg 4, 0
    ireg 5, 0
    popl %eax
    movw $IDE + 7, %dx
    outb %al, %dx
    ret

# The status when BSY is gone, in EAX.
wait_ready:
    movw $CONTROL, %dx
    inb %dx, %al
    inb %dx, %al
1:  inb %dx, %al
    testb $ST_BSY, %al
    jnz 1b
    movzbl %al, %eax
    ret

# A sector to EDI, when it is offered.
read_sector:
    call wait_ready
    testl $ST_DRQ, %eax
    jz read_sector
    movw $IDE, %dx
    movl $256, %ecx
    rep
    insw
    ret

# Fills the buffer with doublewords from EAX on.
fill:
    movl $buffer, %edi
    movl $6 * 128, %ecx
1:  stosl
    incl %eax
    loop 1b
    ret

wipe:
    movl $buffer, %edi
    movl $6 * 128, %ecx
    xorl %eax, %eax
    rep
    stosl
    ret

# EAX: how many of ECX doublewords in the buffer are not those from EAX on.
compare:
    movl $buffer, %esi
    xorl %edi, %edi
1:  cmpl %eax, (%esi)
    je 2f
    incl %edi
2:  addl $4, %esi
    incl %eax
    loop 1b
    movl %edi, %eax
    ret

# Long enough for an interrupt too many to show.
settle:
    movl $50000, %ecx
1:  pause
    loop 1b
    ret

.bss
.balign 4
ide_count: .space 4
.balign 4096
    .space 4096 - 512
buffer: .space 6 * 512                  # across a page border
