// Workload is the program that package runtimetest runs in containers. Each argument is one command, its words
// separated by spaces; they are executed in order. It needs no shell, no library and no file beside it, so that an
// image of this one binary is enough:
//
//	print TEXT…          to standard output, with a newline
//	printn TEXT…         without one
//	eprint TEXT…         to standard error
//	lines N SIZE         N lines of SIZE bytes
//	env NAME             prints a variable
//	args                 prints the arguments
//	pwd, hostname, id    print what they are named after
//	cat FILE             copies a file to standard output
//	write FILE TEXT…     makes or replaces a file
//	access FILE          prints "writable" or the error of opening it for writing
//	stdin                copies standard input to standard output until its end
//	tty                  prints the terminal's size, or "not a tty"
//	sleep MILLISECONDS
//	trap                 prints "ready"; on SIGTERM prints "terminated" and exits 0
//	ignore               prints "ready" and ignores SIGTERM for ever
//	listen PORT          answers each line of each TCP connection, for ever
//	dial ADDRESS         says hello there and prints the answer
//	child                leaves a process that sleeps for ever in the background
//	pids                 prints how many processes /proc shows
//	self                 prints the process's own id
//	eat MEGABYTES        allocates memory and touches it
//	caps, seccomp, nnp   print the lines of /proc/self/status
//	unshare              prints the error of making a user namespace
//	exit CODE
package main
