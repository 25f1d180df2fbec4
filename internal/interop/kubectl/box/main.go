// Box is what the tests' image holds: a few commands in one static binary, called by the names of links to it.
package main

import (
	"archive/tar"
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

var commands = map[string]func(args []string) error{
	"sh": shell, "cat": cat, "echo": echo, "sleep": sleep, "tar": tape, "httpd": httpd, "env": env, "hostname": hostname, "get": get, "ticker": ticker, "nslookup": nslookup,
	"id": id, "stat": stat, "touch": touch, "rm": remove, "fill": fill, "flood": flood, "stubborn": stubborn, "size": size, "probed": probed,
}

func main() {
	name, args := filepath.Base(os.Args[0]), os.Args[1:]
	if commands[name] == nil && len(args) > 0 {
		name, args = args[0], args[1:]
	}
	run := commands[name]
	if run == nil {
		fmt.Fprintln(os.Stderr, "box: no command", name)
		os.Exit(127)
	}
	if err := run(args); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// shell runs one simple command a line, from -c or standard input; "exit N" ends it.
func shell(args []string) error {
	line := func(l string) {
		for _, part := range strings.Split(l, ";") {
			words := strings.Fields(part)
			switch {
			case len(words) == 0:
				continue
			case words[0] == "exit":
				code := 0
				if len(words) > 1 {
					fmt.Sscan(words[1], &code)
				}
				os.Exit(code)
			}
			out := io.Writer(os.Stdout)
			if n := len(words); n > 2 && words[n-2] == ">" {
				f, err := os.Create(words[n-1])
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					continue
				}
				defer f.Close()
				out, words = f, words[:n-2]
			}
			c := exec.Command("/bin/"+words[0], words[1:]...)
			c.Stdin, c.Stdout, c.Stderr = os.Stdin, out, os.Stderr
			if err := c.Run(); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}
	}
	if len(args) > 1 && args[0] == "-c" {
		line(args[1])
		return nil
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		line(in.Text())
	}
	return in.Err()
}

func cat(args []string) error {
	if len(args) == 0 {
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	}
	for _, a := range args {
		b, err := os.ReadFile(a)
		if err != nil {
			return err
		}
		os.Stdout.Write(b)
	}
	return nil
}

func echo(args []string) error {
	fmt.Println(strings.Join(args, " "))
	return nil
}

func env([]string) error {
	for _, e := range os.Environ() {
		fmt.Println(e)
	}
	return nil
}

func hostname([]string) error {
	h, err := os.Hostname()
	fmt.Println(h)
	return err
}

func sleep(args []string) error {
	d, err := time.ParseDuration(strings.Join(args, "") + "s")
	if err != nil {
		d = time.Hour
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	select {
	case <-time.After(d):
	case <-term:
	}
	return nil
}

func ticker([]string) error {
	for i := 0; ; i++ {
		fmt.Println("tick", i)
		time.Sleep(100 * time.Millisecond)
	}
}

// httpd says who it is, on the pod's own address if POD_IP is set.
func httpd(args []string) error {
	port := "8080"
	if len(args) > 0 {
		port = args[0]
	}
	host, _ := os.Hostname()
	return http.ListenAndServe(net.JoinHostPort(os.Getenv("POD_IP"), port), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(r.Method, r.URL.Path)
		fmt.Fprintf(w, "%s %s\n", host, r.URL.Path)
	}))
}

func get(args []string) error {
	c := http.Client{Timeout: 5 * time.Second}
	resp, err := c.Get(args[0])
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(os.Stdout, resp.Body)
	return err
}

func nslookup(args []string) error {
	addrs, err := net.LookupHost(args[0])
	fmt.Println(strings.Join(addrs, " "))
	return err
}

// tape does what kubectl cp asks of tar: "cf - PATH" and "xmf - -C DIR".
func tape(args []string) error {
	mode := args[0]
	if strings.Contains(mode, "c") {
		w := tar.NewWriter(os.Stdout)
		for _, root := range args[1:] {
			if root == "-" {
				continue
			}
			if err := filepath.Walk(root, func(p string, info os.FileInfo, err error) error {
				if err != nil {
					return err
				}
				h, err := tar.FileInfoHeader(info, "")
				if err != nil {
					return err
				}
				h.Name = strings.TrimPrefix(p, "/")
				if err := w.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
					return err
				}
				b, err := os.ReadFile(p)
				if err == nil {
					_, err = w.Write(b)
				}
				return err
			}); err != nil {
				return err
			}
		}
		return w.Close()
	}
	dir := "."
	for i, a := range args {
		if a == "-C" && i+1 < len(args) {
			dir = args[i+1]
		}
	}
	r := tar.NewReader(os.Stdin)
	for {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		to := filepath.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir {
			if err := os.MkdirAll(to, 0o755); err != nil {
				return err
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		f, err := os.Create(to)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		f.Close()
		if err != nil {
			return err
		}
	}
}
