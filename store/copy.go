package store

import (
	"context"
	"errors"
	"fmt"
)

// CopyOptions of Copy; the zero value is the default.
type CopyOptions struct {
	// Prefix of the keys to be copied.
	Prefix string
	// Follow goes on applying what changes in the source until the context ends, which then
	// is no error; progress tells how far behind the copy is.
	Follow bool
	// Progress, if not nil, is called now and then.
	Progress func(CopyProgress)
}

// CopyProgress is how far a copy has come.
type CopyProgress struct {
	Keys   int64 // pairs listed so far
	Events int64 // changes made by others meanwhile, applied so far
	// Revision of the source that the copy corresponds to, 0 before all pairs are listed.
	Revision int64
	// Newest revision of the source when it was last asked.
	Newest int64
}

// Copy copies what is in src to dst while src goes on being written, by whoever. When it
// returns nil, dst has had exactly the state of src at the returned progress's Revision, which is
// at least the one that src was at when the last pair had been listed. dst must have no keys with
// the prefix, and nobody else may write them. The copies have revisions of their own. If the
// changes cannot be followed because src compacts faster than they are applied, the error wraps
// ErrCompacted.
func Copy(ctx context.Context, dst, src Store, opts CopyOptions) (CopyProgress, error) {
	c := copier{opts: opts, dst: batcher{dst: dst}, src: src}
	err := c.run(ctx)
	if err != nil && opts.Follow && c.p.Revision > 0 && ctx.Err() != nil {
		return c.p, nil
	}
	if err != nil {
		err = fmt.Errorf("store: copy: %w", err)
	}
	return c.p, err
}

type copier struct {
	opts CopyOptions
	src  Store
	dst  batcher
	w    Watcher
	at   int64 // what the watcher has reported and was applied
	p    CopyProgress
}

func (c *copier) run(ctx context.Context) error {
	if err := mustBeEmpty(ctx, c.dst.dst, c.opts.Prefix); err != nil {
		return err
	}
	start, _, err := c.src.Revision(ctx)
	if err != nil {
		return err
	}
	if c.w, err = c.src.Watch(ctx, WatchOptions{Prefix: c.opts.Prefix, After: start}); err != nil {
		return err
	}
	defer c.w.Close()
	c.at = start
	// Pages are of different revisions. All that has changed since the first is applied after
	// them in order, so that in the end every key is as the last change left it.
	list := ListOptions{Prefix: c.opts.Prefix, Limit: snapshotPage}
	for {
		page, err := c.src.List(ctx, list)
		if err != nil {
			return err
		}
		for i := range page.KVs {
			if err := c.dst.put(ctx, page.KVs[i].Key, page.KVs[i].Value); err != nil {
				return err
			}
			c.p.Keys++
			list.After = page.KVs[i].Key
		}
		if err := c.catchUp(ctx); err != nil {
			return err
		}
		if !page.More {
			break
		}
	}
	c.p.Revision = c.at
	c.report()
	for c.opts.Follow {
		b, err := c.w.Next(ctx)
		if err != nil {
			return err
		}
		if err := c.apply(ctx, b); err != nil {
			return err
		}
		c.p.Revision, c.p.Newest = c.at, max(c.at, c.p.Newest)
		c.report()
	}
	return nil
}

// catchUp applies all changes up to the source's newest revision.
func (c *copier) catchUp(ctx context.Context) error {
	newest, _, err := c.src.Revision(ctx)
	if err != nil {
		return err
	}
	c.p.Newest = newest
	for c.at < newest {
		b, err := c.w.Next(ctx)
		if err != nil {
			return err
		}
		if err := c.apply(ctx, b); err != nil {
			return err
		}
		c.report()
	}
	return c.dst.flush(ctx)
}

func (c *copier) apply(ctx context.Context, b Batch) error {
	for i := range b.Events {
		ev := &b.Events[i]
		op := Put(ev.KV.Key, ev.KV.Value, Any())
		if ev.Deleted {
			op = Delete(ev.KV.Key, Any())
		}
		if err := c.dst.add(ctx, op, len(ev.KV.Key)+len(ev.KV.Value)); err != nil {
			return err
		}
		c.p.Events++
	}
	if err := c.dst.flush(ctx); err != nil {
		return err
	}
	c.at = b.Revision
	return nil
}

func (c *copier) report() {
	if c.opts.Progress != nil {
		c.opts.Progress(c.p)
	}
}

// ErrDifferent reports two stores that have not the same pairs.
var ErrDifferent = errors.New("store: different")

// CompareOptions of Compare; the zero value is the default.
type CompareOptions struct {
	// Prefix of the keys to be compared.
	Prefix string
	// Progress, if not nil, is called now and then with how many keys have been found to be the same.
	Progress func(keys int64)
}

// Compare returns nil if a and b have the same keys with the prefix, and the same values, each
// at its newest revision when it is called; an error that wraps ErrDifferent and names the first key that
// differs; or another error. Revisions are not compared.
func Compare(ctx context.Context, a, b Store, opts CompareOptions) (keys int64, err error) {
	list := ListOptions{Prefix: opts.Prefix, Limit: snapshotPage}
	pa, pb := pager{s: a, opts: list}, pager{s: b, opts: list}
	for {
		if opts.Progress != nil && keys%snapshotPage == 0 {
			opts.Progress(keys)
		}
		x, err := pa.next(ctx)
		if err != nil {
			return keys, err
		}
		y, err := pb.next(ctx)
		if err != nil {
			return keys, err
		}
		switch {
		case x == nil && y == nil:
			return keys, nil
		case y == nil || x != nil && x.Key < y.Key:
			return keys, fmt.Errorf("%w: only the first store has %q", ErrDifferent, x.Key)
		case x == nil || y.Key < x.Key:
			return keys, fmt.Errorf("%w: only the second store has %q", ErrDifferent, y.Key)
		case string(x.Value) != string(y.Value):
			return keys, fmt.Errorf("%w: the values of %q", ErrDifferent, x.Key)
		}
		keys++
	}
}

// pager goes through the pairs of a store at one revision.
type pager struct {
	s    Store
	opts ListOptions
	page []KV
	done bool
}

func (p *pager) next(ctx context.Context) (*KV, error) {
	if len(p.page) == 0 {
		if p.done {
			return nil, nil
		}
		res, err := p.s.List(ctx, p.opts)
		if err != nil {
			return nil, err
		}
		p.page, p.done, p.opts.Revision = res.KVs, !res.More, res.Revision
		if len(p.page) == 0 {
			return nil, nil
		}
		p.opts.After = p.page[len(p.page)-1].Key
	}
	kv := &p.page[0]
	p.page = p.page[1:]
	return kv, nil
}
