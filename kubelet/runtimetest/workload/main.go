package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	for _, line := range os.Args[1:] {
		code, exit, err := command(strings.Split(line, " "))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if exit {
			os.Exit(code)
		}
	}
}

func number(args []string, i int) int {
	if i >= len(args) {
		return 0
	}
	n, _ := strconv.Atoi(args[i])
	return n
}

func command(f []string) (code int, exit bool, err error) {
	name, args := f[0], f[1:]
	text := strings.Join(args, " ")
	switch name {
	case "print":
		fmt.Println(text)
	case "printn":
		fmt.Print(text)
	case "eprint":
		fmt.Fprintln(os.Stderr, text)
	case "lines":
		line := strings.Repeat("x", number(args, 1)) + "\n"
		for range number(args, 0) {
			if _, err := os.Stdout.WriteString(line); err != nil {
				return 0, false, err
			}
		}
	case "env":
		fmt.Println(os.Getenv(text))
	case "args":
		fmt.Println(strings.Join(os.Args[1:], "|"))
	case "pwd":
		dir, err := os.Getwd()
		if err != nil {
			return 0, false, err
		}
		fmt.Println(dir)
	case "hostname":
		h, err := os.Hostname()
		if err != nil {
			return 0, false, err
		}
		fmt.Println(h)
	case "id":
		groups, _ := os.Getgroups()
		fmt.Println(os.Getuid(), os.Getgid(), groups)
	case "cat":
		b, err := os.ReadFile(text)
		if err != nil {
			return 0, false, err
		}
		_, _ = os.Stdout.Write(b)
	case "write":
		return 0, false, os.WriteFile(args[0], []byte(strings.Join(args[1:], " ")+"\n"), 0o644)
	case "access":
		f, err := os.OpenFile(text, os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			fmt.Println(err)
			return 0, false, nil
		}
		f.Close()
		fmt.Println("writable")
	case "stdin":
		_, err := io.Copy(os.Stdout, os.Stdin)
		return 0, false, err
	case "tty":
		tty()
	case "sleep":
		time.Sleep(time.Duration(number(args, 0)) * time.Millisecond)
	case "trap":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("ready")
		<-c
		fmt.Println("terminated")
		return 0, true, nil
	case "ignore":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		for {
			time.Sleep(time.Hour)
		}
	case "listen":
		return 0, false, listen(text)
	case "dial":
		c, err := net.DialTimeout("tcp", text, 5*time.Second)
		if err != nil {
			return 0, false, err
		}
		defer c.Close()
		fmt.Fprintln(c, "hello")
		line, err := bufio.NewReader(c).ReadString('\n')
		fmt.Print(line)
		return 0, false, err
	case "child":
		c := exec.Command("/proc/self/exe", "sleep 100000000")
		return 0, false, c.Start()
	case "pids":
		dirs, err := filepath.Glob("/proc/[0-9]*")
		fmt.Println(len(dirs))
		return 0, false, err
	case "self":
		fmt.Println(os.Getpid())
	case "eat":
		b := make([]byte, number(args, 0)<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		fmt.Println("ate", len(b))
	case "caps":
		return 0, false, status("CapBnd:", "CapEff:")
	case "seccomp":
		return 0, false, status("Seccomp:")
	case "nnp":
		return 0, false, status("NoNewPrivs:")
	case "unshare":
		unshare()
	case "exit":
		return number(args, 0), true, nil
	default:
		return 0, false, fmt.Errorf("unknown command %q", name)
	}
	return 0, false, nil
}

func status(keys ...string) error {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for _, line := range strings.Split(string(b), "\n") {
		for _, k := range keys {
			if strings.HasPrefix(line, k) {
				fmt.Println(strings.Join(strings.Fields(line), " "))
			}
		}
	}
	return nil
}

func listen(port string) error {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			for sc := bufio.NewScanner(c); sc.Scan(); {
				fmt.Fprintf(c, "you said %s\n", sc.Text())
			}
		}()
	}
}
