# The bus master: sectors that go between the disk and memory by themselves.

.text
.set PCI_ADDRESS, 0xcf8
.set PCI_DATA, 0xcfc
.set IDE_FUNCTION, 0x80000900           # bus 0, device 1, function 1

.set BM_START, 0x01
.set BM_TO_MEMORY, 0x08
.set BM_ACTIVE, 0x01
.set BM_INTERRUPT, 0x04

dma:
    call find_master
    movzwl master, %eax
    andl $15, %eax
    check_eq "PCI shows the bus master's ports", %eax, $0
    movl $0x33330000, %eax
    call fill
    # Regions of one sector and of two.
    movl $buffer, table
    movl $0x200, table + 4
    movl $buffer + 0x200, table + 8
    movl $0x80000400, table + 12
    movb $0, %bl
    movb $0xca, %bh
    call transfer
    check_eq "WRITE DMA ends, with an interrupt", %eax, $BM_INTERRUPT
    call wait_ready
    andl $ST_ERR | ST_DRQ, %eax
    check_eq "... and without an error", %eax, $0
    call wipe
    # One of two, which crosses a page border, and one of one.
    movl $0x400, table + 4
    movl $buffer + 0x400, table + 8
    movl $0x80000200, table + 12
    movb $BM_TO_MEMORY, %bl
    movb $0xc8, %bh
    call transfer
    check_eq "READ DMA ends", %eax, $BM_INTERRUPT
    movl $0x33330000, %eax
    movl $3 * 128, %ecx
    call compare
    check_eq "... with what was written", %eax, $0
    movl $40, %ebx
    movl $3, %ecx
    movb $0x20, %al
    call command
    movl $buffer, %edi
    call read_sector
    call read_sector
    call read_sector
    movl $0x33330000, %eax
    movl $3 * 128, %ecx
    call compare
    check_eq "... and READ SECTORS gives the same", %eax, $0
    # The command first or the bus master first: both wait.
    ireg 6, 0xe0
    movb $BM_TO_MEMORY, %al
    call set_master
    call wipe
    movb $BM_TO_MEMORY | BM_START, %al
    movw master, %dx
    outb %al, %dx
    movl $40, %ebx
    movl $3, %ecx
    movb $0xc8, %al
    call command
    call await_master
    check_eq "the bus master may be started before the command", %eax, $BM_INTERRUPT
    movl $0x33330000, %eax
    movl $3 * 128, %ecx
    call compare
    check_eq "... and reads all the same", %eax, $0
    movw master, %dx
    addl $2, %edx
    movb $BM_INTERRUPT, %al
    outb %al, %dx
    inb %dx, %al
    andl $BM_INTERRUPT | BM_ACTIVE, %eax
    check_eq "a written 1 clears the interrupt bit", %eax, $0
    ret

# Finds the bus master's ports and lets it access memory.
find_master:
    movl $IDE_FUNCTION | 0x20, %eax
    call pci_select
    inl %dx, %eax
    andl $0xfffc, %eax
    movw %ax, master
    movl $IDE_FUNCTION | 0x04, %eax
    call pci_select
    inw %dx, %ax
    orl $5, %eax
    outw %ax, %dx
    ret

pci_select:
    movw $PCI_ADDRESS, %dx
    outl %eax, %dx
    movw $PCI_DATA, %dx
    ret

# AL: command without its start bit. Hands the table over.
set_master:
    pushl %eax
    xorl %eax, %eax
    movw master, %dx
    outb %al, %dx
    movl $table, %eax
    addl $4, %edx
    outl %eax, %dx
    subl $2, %edx
    movb $0x06, %al
    outb %al, %dx
    popl %eax
    movw master, %dx
    outb %al, %dx
    ret

# Three sectors from 40 on. BL: direction, BH: the disk's command. EAX: the bus master's status at the end.
transfer:
    pushl %ebx
    movb %bl, %al
    call set_master
    movb %bh, %al
    movl $40, %ebx
    movl $3, %ecx
    call command
    popl %ebx
    movb %bl, %al
    orb $BM_START, %al
    movw master, %dx
    outb %al, %dx
# The status when the interrupt bit is set, in EAX; the bus master is stopped then.
await_master:
    movw master, %dx
    addl $2, %edx
1:  inb %dx, %al
    testb $BM_INTERRUPT, %al
    jz 1b
    andl $BM_INTERRUPT | BM_ACTIVE | 2, %eax
    pushl %eax
    movw $IDE + 7, %dx
2:  inb %dx, %al
    testb $ST_BSY, %al
    jnz 2b
    xorl %eax, %eax
    movw master, %dx
    outb %al, %dx
    popl %eax
    ret

.bss
.balign 16
table: .space 16
master: .space 4
