package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// id says who the process is and what it may do.
func id([]string) error {
	groups, err := os.Getgroups()
	if err != nil {
		return err
	}
	fmt.Printf("uid=%d gid=%d groups=%v\n", os.Getuid(), os.Getgid(), groups)
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for l := range strings.Lines(string(b)) {
		for _, name := range []string{"CapEff:", "CapBnd:", "NoNewPrivs:", "Seccomp:"} {
			if strings.HasPrefix(l, name) {
				fmt.Print(strings.ReplaceAll(l, "\t", ""))
			}
		}
	}
	return nil
}

// stat says of every path its mode, owner and file system.
func stat(paths []string) error {
	for _, p := range paths {
		var st unix.Stat_t
		var fs unix.Statfs_t
		if err := errors.Join(unix.Stat(p, &st), unix.Statfs(p, &fs)); err != nil {
			return err
		}
		kind := "disk"
		if fs.Type == unix.TMPFS_MAGIC {
			kind = "tmpfs"
		}
		fmt.Printf("%s mode=%o owner=%d:%d fs=%s size=%d\n", p, st.Mode&0o7777, st.Uid, st.Gid, kind, int64(fs.Blocks)*fs.Bsize)
	}
	return nil
}

func touch(paths []string) error {
	for _, p := range paths {
		if err := os.WriteFile(p, nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func remove(paths []string) error {
	for _, p := range paths {
		if err := os.Remove(p); err != nil {
			return err
		}
	}
	return nil
}

// fill writes so many kilobytes to a file.
func fill(args []string) error {
	var n int64
	fmt.Sscan(args[1], &n)
	f, err := os.Create(args[0])
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(f, zeros{}, n<<10)
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// flood writes so many numbered lines of a kilobyte, and then one a tenth of a second.
func flood(args []string) error {
	var n int
	fmt.Sscan(args[0], &n)
	pad := strings.Repeat("x", 1000)
	for i := 0; ; i++ {
		fmt.Printf("line %08d %s\n", i, pad)
		if i >= n {
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// stubborn says which signals it gets and stays.
func stubborn([]string) error {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	fmt.Println("ready")
	for s := range c {
		fmt.Println("got", s)
	}
	return nil
}

// size says how large its terminal is, whenever that changes.
func size([]string) error {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGWINCH)
	timeout := time.After(20 * time.Second)
	for {
		ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
		if err != nil {
			return err
		}
		fmt.Printf("size %dx%d\n", ws.Col, ws.Row)
		if ws.Col == 132 {
			return nil
		}
		select {
		case <-c:
		case <-timeout:
			return errors.New("never resized")
		}
	}
}

// probed answers HTTP with 200 at /is/FILE while the file exists, and gRPC health checks of the service FILE in the same way.
func probed(args []string) error {
	l, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("POD_IP"), args[1]))
	if err != nil {
		return err
	}
	h := health.NewServer()
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, h)
	go func() {
		for ; ; time.Sleep(50 * time.Millisecond) {
			state := healthpb.HealthCheckResponse_NOT_SERVING
			if _, err := os.Stat("/state/grpc"); err == nil {
				state = healthpb.HealthCheckResponse_SERVING
			}
			h.SetServingStatus("grpc", state)
		}
	}()
	go func() { _ = s.Serve(l) }()
	return http.ListenAndServe(net.JoinHostPort(os.Getenv("POD_IP"), args[0]), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Println(r.Method, r.URL.Path)
		if f, ok := strings.CutPrefix(r.URL.Path, "/is/"); ok {
			if _, err := os.Stat("/state/" + f); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}
	}))
}
