package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/keelson/keelson/store"
)

// snapshot writes to a file beside the one wanted, so that there is never half of one.
func (c *command) snapshot(ctx context.Context) error {
	if c.file == "" {
		return errors.New("-o is empty, want the name of a file")
	}
	return c.with(ctx, false, func(s store.Store) error {
		f, err := os.CreateTemp(filepath.Dir(c.file), filepath.Base(c.file)+".part-*")
		if err != nil {
			return err
		}
		defer func() { _ = os.Remove(f.Name()) }()
		info, err := store.Snapshot(ctx, s, f, func(i store.SnapshotInfo) { c.progress("%d keys, %d bytes", i.Keys, i.Bytes) })
		if err == nil {
			err = f.Sync()
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		if err := os.Rename(f.Name(), c.file); err != nil {
			return err
		}
		c.describe(info)
		return nil
	})
}

func (c *command) describe(i store.SnapshotInfo) {
	fmt.Fprintf(c.out, "revision %d, %d keys, %d bytes, sha256 %x\n", i.Revision, i.Keys, i.Bytes, i.Checksum)
}

// snapshotFile opens the file of -i.
func (c *command) snapshotFile() (*os.File, error) {
	if c.input == "" {
		return nil, errors.New("-i is empty, want the name of a snapshot")
	}
	return os.Open(c.input)
}

func (c *command) verify(context.Context) error {
	f, err := c.snapshotFile()
	if err != nil {
		return err
	}
	defer f.Close()
	n := 0
	info, err := store.ReadSnapshot(f, func(store.KV) error {
		n++
		c.progress("checked %d keys", n)
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
	return c.with(ctx, true, func(s store.Store) error {
		f, err := c.snapshotFile()
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = store.Restore(ctx, s, f, store.RestoreOptions{
			KeepRevisions: c.keepRevisions, Skip: c.skip, Progress: func(p store.RestoreProgress) {
				if p.Target == 0 {
					c.progress("restored %d keys", p.Keys)
				} else {
					c.progress("at revision %d on the way to %d", p.Revision, p.Target)
				}
			},
		})
		return err
	})
}

func (c *command) copy(ctx context.Context) error {
	return c.both(ctx, true, func(from, to store.Store) error {
		const format = "%d keys, %d changes meanwhile, at revision %d of %d"
		p, err := store.Copy(ctx, to, from, store.CopyOptions{
			Prefix: c.prefix, Follow: c.follow, Progress: func(p store.CopyProgress) { c.progress(format, p.Keys, p.Events, p.Revision, p.Newest) },
		})
		if err == nil {
			fmt.Fprintf(c.out, format+"\n", p.Keys, p.Events, p.Revision, p.Newest)
		}
		return err
	})
}

func (c *command) compare(ctx context.Context) error {
	return c.both(ctx, false, func(from, to store.Store) error {
		n, err := store.Compare(ctx, from, to, store.CompareOptions{
			Prefix: c.prefix, Progress: func(keys int64) { c.progress("compared %d keys", keys) },
		})
		if err == nil {
			fmt.Fprintf(c.out, "%d keys are the same\n", n)
		}
		return err
	})
}
