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
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/keelson/keelson/store"
	"github.com/keelson/keelson/store/boltstore"
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
where S is memory, bolt=FILE or etcd=URL,URL...; storectl COMMAND -h shows a command's flags
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
	in              io.Reader
	out, diag       io.Writer
	args            []string
	store, from, to string
	keyPrefix       string
	prefix, file    string
	input, listen   string
	revision, skip  int64
	follow, values  bool
	keepRevisions   bool
	username        string
	server, client  tlsFiles
	reported        time.Time
}

// verb is what a command does.
type verb struct {
	do func(context.Context) error
	// args is what comes behind the flags.
	args []string
	// flags are those that the command has, by name.
	flags []string
}

func (c *command) verbs() map[string]verb {
	return map[string]verb{
		"get":      {c.get, []string{"KEY"}, []string{"store", "revision"}},
		"list":     {c.list, nil, []string{"store", "prefix", "revision", "values"}},
		"watch":    {c.watch, nil, []string{"store", "prefix", "revision", "values"}},
		"put":      {c.put, []string{"KEY", "VALUE"}, []string{"store"}},
		"delete":   {c.delete, []string{"KEY"}, []string{"store"}},
		"compact":  {c.compact, nil, []string{"store", "revision"}},
		"snapshot": {c.snapshot, nil, []string{"store", "o"}},
		"restore":  {c.restore, nil, []string{"store", "i", "skip", "keep-revisions"}},
		"verify":   {c.verify, nil, []string{"i"}},
		"copy":     {c.copy, nil, []string{"from", "to", "prefix", "follow"}},
		"compare":  {c.compare, nil, []string{"from", "to", "prefix"}},
		"serve":    {c.serve, nil, []string{"store", "listen"}},
	}
}

// define defines one flag, and with a store those of its client.
func (c *command) define(f *flag.FlagSet, name string) {
	const stores = ": memory, bolt=FILE or etcd=URL,URL..."
	switch name {
	case "store":
		f.StringVar(&c.store, name, "", "the store"+stores)
	case "from":
		f.StringVar(&c.from, name, "", "the one store"+stores)
	case "to":
		f.StringVar(&c.to, name, "", "the other store"+stores)
	case "prefix":
		f.StringVar(&c.prefix, name, "", "only keys that begin with this")
	case "o":
		f.StringVar(&c.file, name, "", "file to write the snapshot to")
	case "i":
		f.StringVar(&c.input, name, "", "file to read the snapshot from")
	case "revision":
		f.Int64Var(&c.revision, name, 0, "revision to read at, watch after, or compact to; 0 for the newest")
	case "follow":
		f.BoolVar(&c.follow, name, false, "go on copying what changes until interrupted")
	case "values":
		f.BoolVar(&c.values, name, false, "print values too")
	case "keep-revisions":
		f.BoolVar(&c.keepRevisions, name, false, "do not skip revisions; clients have to be restarted")
	case "skip":
		f.Int64Var(&c.skip, name, 0, "revisions to skip, more than there have been since the snapshot; 0 for very many")
	case "listen":
		f.StringVar(&c.listen, name, "127.0.0.1:2379", "address to serve on")
		c.server.serverFlags(f)
	}
	if name == "store" || name == "from" {
		f.StringVar(&c.keyPrefix, "key-prefix", "", "put before every key of an etcd")
		f.StringVar(&c.username, "user", "", "user of an etcd; the password comes from STORECTL_PASSWORD")
		c.client.clientFlags(f)
	}
}

func run(ctx context.Context, args []string, in io.Reader, out, diag io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(diag, usage)
		return errors.New("there is no command")
	}
	c := &command{in: in, out: out, diag: diag}
	name := args[0]
	switch name {
	case "help", "-h", "-help", "--help":
		_, err := fmt.Fprint(out, usage)
		return err
	}
	v, ok := c.verbs()[name]
	if !ok {
		fmt.Fprint(diag, usage)
		return fmt.Errorf("there is no command %q", name)
	}
	f := flag.NewFlagSet("storectl "+name, flag.ContinueOnError)
	f.SetOutput(diag)
	for _, flag := range v.flags {
		c.define(f, flag)
	}
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	if c.args = f.Args(); len(c.args) != len(v.args) {
		want := "nothing"
		if len(v.args) > 0 {
			want = strings.Join(v.args, " ")
		}
		return fmt.Errorf("%s takes %s behind its flags, not %q", name, want, c.args)
	}
	return v.do(ctx)
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
		return etcdstore.New(ctx, strings.Split(where, ","), etcdstore.Options{
			Prefix: c.keyPrefix, Username: c.username, Password: os.Getenv("STORECTL_PASSWORD"), TLS: secured,
		})
	case spec == "":
		return nil, errors.New("there is no store, want memory, bolt=FILE or etcd=URL")
	}
	return nil, fmt.Errorf("the store is %q, want memory, bolt=FILE or etcd=URL", spec)
}

// with calls f with the store of -store.
func (c *command) with(ctx context.Context, create bool, f func(store.Store) error) (err error) {
	s, err := c.open(ctx, c.store, create)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return f(s)
}

// both calls f with the stores of -from and -to.
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

// progress reports on a long operation twice a second.
func (c *command) progress(format string, args ...any) {
	if now := time.Now(); now.Sub(c.reported) > 500*time.Millisecond {
		c.reported = now
		fmt.Fprintf(c.diag, format+"\n", args...)
	}
}
