// Storectl looks at stores, and saves, restores, copies and serves them.
//
//	storectl list -store bolt=cluster.db -prefix /registry/pods/
//	storectl snapshot -store etcd=http://127.0.0.1:2379 -o backup
//	storectl restore -store bolt=new.db -i backup
//	storectl copy -from etcd=http://127.0.0.1:2379 -to bolt=cluster.db -follow
//	storectl serve -store bolt=cluster.db -listen 127.0.0.1:2379
//
// A store is memory, bolt=FILE or etcd=URL,URL…; -key-prefix is put before the keys of etcd's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/boltstore"
	"github.com/keelson/keelson/store/etcdserve"
	"github.com/keelson/keelson/store/etcdstore"
	"github.com/keelson/keelson/store/memstore"
)

const usage = `usage: storectl COMMAND [flags], where COMMAND is one of
  get       -store S KEY             print a value
  list      -store S [-prefix P]     print keys with their revisions and sizes
  watch     -store S [-prefix P]     print changes until interrupted
  put       -store S KEY VALUE       put a value ("-" reads it from standard input)
  delete    -store S KEY             delete a key
  compact   -store S [-revision N]   drop history up to a revision, by default all
  snapshot  -store S -o FILE         save what the store holds, online
  restore   -store S -i FILE         put a snapshot into an empty store
  verify    -i FILE                  check a snapshot
  copy      -from S -to S            copy a store, online; -follow goes on until interrupted
  compare   -from S -to S            compare the pairs of two stores
  serve     -store S -listen ADDR    serve the store through etcd's API; with TLS by -cert-file and -key-file
where S is memory, bolt=FILE or etcd=URL,URL...; storectl COMMAND -h shows all flags
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "storectl:", err)
		os.Exit(1)
	}
}

// command is what the flags say.
type command struct {
	in               io.Reader
	out, diag        io.Writer
	args             []string
	store, from, to  string
	keyPrefix        string
	prefix, file     string
	input, listen    string
	revision         int64
	follow, values   bool
	keepRevisions    bool
	username, secret string
	server, client   tlsFiles
	skip             int64
	reported         time.Time
}

func run(ctx context.Context, args []string, in io.Reader, out, diag io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(diag, usage)
		return errors.New("there is no command")
	}
	c := &command{in: in, out: out, diag: diag}
	commands := map[string]func(context.Context) error{
		"get": c.get, "list": c.list, "watch": c.watch, "put": c.put, "delete": c.delete, "compact": c.compact,
		"snapshot": c.snapshot, "restore": c.restore, "verify": c.verify, "copy": c.copy, "compare": c.compare, "serve": c.serve,
	}
	do, ok := commands[args[0]]
	if !ok {
		fmt.Fprint(diag, usage)
		return fmt.Errorf("there is no command %q", args[0])
	}
	f := flag.NewFlagSet("storectl "+args[0], flag.ContinueOnError)
	f.SetOutput(diag)
	f.StringVar(&c.store, "store", "", "memory, bolt=FILE or etcd=URL,URL...")
	f.StringVar(&c.from, "from", "", "the store to copy from, or to compare")
	f.StringVar(&c.to, "to", "", "the store to copy to, or to compare with")
	f.StringVar(&c.keyPrefix, "key-prefix", "", "put before every key of an etcd")
	f.StringVar(&c.username, "user", "", "user of an etcd; the password comes from STORECTL_PASSWORD")
	f.StringVar(&c.prefix, "prefix", "", "only keys that begin with this")
	f.StringVar(&c.file, "o", "", "file to write the snapshot to")
	f.StringVar(&c.input, "i", "", "file to read the snapshot from")
	f.StringVar(&c.listen, "listen", "127.0.0.1:2379", "address to serve on")
	f.Int64Var(&c.revision, "revision", 0, "revision to read at, watch after, or compact to; 0 for the newest")
	f.BoolVar(&c.follow, "follow", false, "go on copying what changes until interrupted")
	f.BoolVar(&c.values, "values", false, "print values too")
	f.BoolVar(&c.keepRevisions, "keep-revisions", false, "do not skip revisions when restoring; clients have to be restarted")
	f.Int64Var(&c.skip, "skip", 0, "revisions to skip when restoring, more than there have been since the snapshot; 0 for very many")
	c.client.clientFlags(f)
	c.server.serverFlags(f)
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	c.args = f.Args()
	c.secret = os.Getenv("STORECTL_PASSWORD")
	return do(ctx)
}

// open opens the store that spec describes. A file that is only to be read has to be there.
func (c *command) open(ctx context.Context, spec string, create bool) (store.Store, error) {
	kind, where, _ := strings.Cut(spec, "=")
	switch {
	case spec == "memory":
		return memstore.New(memstore.Options{})
	case kind == "bolt" && where != "":
		if _, err := os.Stat(where); err != nil && !create {
			return nil, err
		}
		return boltstore.Open(where, boltstore.Options{})
	case kind == "etcd" && where != "":
		secured, err := c.client.client()
		if err != nil {
			return nil, err
		}
		return etcdstore.New(ctx, strings.Split(where, ","), etcdstore.Options{Prefix: c.keyPrefix, Username: c.username, Password: c.secret, TLS: secured})
	case spec == "":
		return nil, errors.New("there is no store, want memory, bolt=FILE or etcd=URL")
	}
	return nil, fmt.Errorf("the store is %q, want memory, bolt=FILE or etcd=URL", spec)
}

// with calls f with the store of -store.
func (c *command) with(ctx context.Context, create bool, args int, f func(store.Store) error) (err error) {
	if len(c.args) != args {
		return fmt.Errorf("there are %d arguments behind the flags, want %d", len(c.args), args)
	}
	s, err := c.open(ctx, c.store, create)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return f(s)
}

// progress reports on a long operation twice a second.
func (c *command) progress(last bool, format string, args ...any) {
	if now := time.Now(); last || now.Sub(c.reported) > 500*time.Millisecond {
		c.reported = now
		fmt.Fprintf(c.diag, format+"\n", args...)
	}
}

func (c *command) get(ctx context.Context) error {
	return c.with(ctx, false, 1, func(s store.Store) error {
		res, err := s.Get(ctx, c.args[0], c.revision)
		if err != nil {
			return err
		}
		if res.KV == nil {
			return fmt.Errorf("there is no %q at revision %d", c.args[0], res.Revision)
		}
		_, err = c.out.Write(res.KV.Value)
		return err
	})
}

func (c *command) list(ctx context.Context) error {
	return c.with(ctx, false, 0, func(s store.Store) error {
		opts := store.ListOptions{Prefix: c.prefix, Limit: 1000, Revision: c.revision}
		for {
			page, err := s.List(ctx, opts)
			if err != nil {
				return err
			}
			for _, kv := range page.KVs {
				c.print("", kv)
				opts.After = kv.Key
			}
			if opts.Revision = page.Revision; !page.More {
				return nil
			}
		}
	})
}

func (c *command) print(what string, kv store.KV) {
	fmt.Fprintf(c.out, "%s%s\tcreated %d\tmodified %d\t%d bytes", what, kv.Key, kv.CreateRevision, kv.ModRevision, len(kv.Value))
	if c.values {
		fmt.Fprintf(c.out, "\t%q", kv.Value)
	}
	fmt.Fprintln(c.out)
}

func (c *command) watch(ctx context.Context) error {
	return c.with(ctx, false, 0, func(s store.Store) error {
		w, err := s.Watch(ctx, store.WatchOptions{Prefix: c.prefix, After: c.revision})
		if err != nil {
			return err
		}
		defer w.Close()
		for {
			b, err := w.Next(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			for _, ev := range b.Events {
				switch {
				case ev.Deleted:
					c.print("deleted\t", ev.KV)
				case ev.Prev == nil:
					c.print("created\t", ev.KV)
				default:
					c.print("updated\t", ev.KV)
				}
			}
		}
	})
}

func (c *command) put(ctx context.Context) error {
	return c.with(ctx, true, 2, func(s store.Store) error {
		value := []byte(c.args[1])
		if c.args[1] == "-" {
			var err error
			if value, err = io.ReadAll(c.in); err != nil {
				return err
			}
		}
		rev, err := s.Commit(ctx, store.Put(c.args[0], value, store.Any()))
		if err == nil {
			fmt.Fprintln(c.out, "revision", rev)
		}
		return err
	})
}

func (c *command) delete(ctx context.Context) error {
	return c.with(ctx, false, 1, func(s store.Store) error {
		rev, err := s.Commit(ctx, store.Delete(c.args[0], store.Present()))
		if err == nil {
			fmt.Fprintln(c.out, "revision", rev)
		}
		return err
	})
}

func (c *command) compact(ctx context.Context) error {
	return c.with(ctx, false, 0, func(s store.Store) error {
		rev := c.revision
		if rev == 0 {
			var err error
			if rev, _, err = s.Revision(ctx); err != nil {
				return err
			}
		}
		return s.Compact(ctx, rev)
	})
}

// snapshot writes to a file beside the one wanted, so that there is never half of one.
func (c *command) snapshot(ctx context.Context) error {
	if c.file == "" {
		return errors.New("-o is empty, want the name of a file")
	}
	return c.with(ctx, false, 0, func(s store.Store) error {
		f, err := os.CreateTemp(filepath.Dir(c.file), filepath.Base(c.file)+".part-*")
		if err != nil {
			return err
		}
		defer func() { _ = os.Remove(f.Name()) }()
		defer f.Close()
		info, err := store.Snapshot(ctx, s, f, func(i store.SnapshotInfo) { c.progress(false, "%d keys, %d bytes", i.Keys, i.Bytes) })
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close(), os.Rename(f.Name(), c.file)); err != nil {
			return err
		}
		c.describe(info)
		return nil
	})
}

func (c *command) describe(i store.SnapshotInfo) {
	fmt.Fprintf(c.out, "revision %d, %d keys, %d bytes, sha256 %x\n", i.Revision, i.Keys, i.Bytes, i.Checksum)
}

func (c *command) verify(context.Context) error {
	f, err := os.Open(c.input)
	if err != nil {
		return err
	}
	defer f.Close()
	n := 0
	info, err := store.ReadSnapshot(f, func(store.KV) error {
		n++
		c.progress(false, "%d keys", n)
		return nil
	})
	if err != nil {
		return err
	}
	c.describe(info)
	return nil
}

// restore checks the snapshot before it touches the store.
func (c *command) restore(ctx context.Context) error {
	if err := c.verify(ctx); err != nil {
		return err
	}
	return c.with(ctx, true, 0, func(s store.Store) error {
		f, err := os.Open(c.input)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = store.Restore(ctx, s, f, store.RestoreOptions{KeepRevisions: c.keepRevisions, Skip: c.skip})
		return err
	})
}

// both opens the stores of -from and -to.
func (c *command) both(ctx context.Context, create bool, f func(from, to store.Store) error) (err error) {
	from, err := c.open(ctx, c.from, false)
	if err != nil {
		return fmt.Errorf("-from: %w", err)
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	to, err := c.open(ctx, c.to, create)
	if err != nil {
		return fmt.Errorf("-to: %w", err)
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	return f(from, to)
}

func (c *command) copy(ctx context.Context) error {
	return c.both(ctx, true, func(from, to store.Store) error {
		report := func(last bool, p store.CopyProgress) {
			c.progress(last, "%d keys, %d changes meanwhile, at revision %d of %d", p.Keys, p.Events, p.Revision, p.Newest)
		}
		p, err := store.Copy(ctx, to, from, store.CopyOptions{
			Prefix: c.prefix, Follow: c.follow, Progress: func(p store.CopyProgress) { report(false, p) },
		})
		report(true, p)
		return err
	})
}

func (c *command) compare(ctx context.Context) error {
	return c.both(ctx, false, func(from, to store.Store) error {
		n, err := store.Compare(ctx, from, to, c.prefix)
		if err == nil {
			fmt.Fprintf(c.out, "%d keys are the same\n", n)
		}
		return err
	})
}

func (c *command) serve(ctx context.Context) error {
	secured, err := c.server.server()
	if err != nil {
		return err
	}
	return c.with(ctx, true, 0, func(s store.Store) (err error) {
		leases, err := c.leases()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, leases.Close()) }()
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.listen)
		if err != nil {
			return err
		}
		url := "http://" + l.Addr().String()
		if secured != nil {
			url = "https://" + l.Addr().String()
		}
		srv, err := etcdserve.New(s, etcdserve.Options{ClientURLs: []string{url}, TLS: secured, Leases: leases})
		if err != nil {
			return errors.Join(err, l.Close())
		}
		fmt.Fprintln(c.out, "serving", url)
		return srv.Serve(ctx, l)
	})
}

// leases opens what keeps the leases of a served store: for one in a file, another file beside it.
func (c *command) leases() (store.Store, error) {
	if file, ok := strings.CutPrefix(c.store, "bolt="); ok {
		return boltstore.Open(file+".leases", boltstore.Options{})
	}
	return memstore.New(memstore.Options{})
}
