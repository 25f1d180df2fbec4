package main

import (
	"context"
	"fmt"
	"io"

	"github.com/keelson/keelson/store"
)

func (c *command) get(ctx context.Context) error {
	return c.with(ctx, false, func(s store.Store) error {
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
	return c.with(ctx, false, func(s store.Store) error {
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
	return c.with(ctx, false, func(s store.Store) error {
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
	return c.with(ctx, true, func(s store.Store) error {
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
	return c.with(ctx, false, func(s store.Store) error {
		rev, err := s.Commit(ctx, store.Delete(c.args[0], store.Present()))
		if err == nil {
			fmt.Fprintln(c.out, "revision", rev)
		}
		return err
	})
}

func (c *command) compact(ctx context.Context) error {
	return c.with(ctx, false, func(s store.Store) error {
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
