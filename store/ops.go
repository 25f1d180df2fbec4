package store

import "fmt"

// CheckOps returns an error that wraps ErrInvalid if ops cannot be the arguments of a Commit
// in any state of a store. It is for implementations.
func CheckOps(ops []Op) error {
	for i := range ops {
		op := &ops[i]
		if op.Key == "" {
			return fmt.Errorf("%w: op %d has no key", ErrInvalid, i)
		}
		if op.Kind > OpCheck {
			return fmt.Errorf("%w: op %d on %q is of unknown kind %d", ErrInvalid, i, op.Key, op.Kind)
		}
		if op.If.kind == condAt && op.If.rev <= 0 {
			return fmt.Errorf("%w: op %d requires %q at revision %d, want one above 0", ErrInvalid, i, op.Key, op.If.rev)
		}
	}
	if len(ops) < 2 {
		return nil
	}
	if len(ops) <= 8 {
		for i := range ops {
			for j := range i {
				if ops[i].Key == ops[j].Key {
					return duplicateKey(ops[i].Key)
				}
			}
		}
		return nil
	}
	seen := make(map[string]struct{}, len(ops))
	for i := range ops {
		if _, ok := seen[ops[i].Key]; ok {
			return duplicateKey(ops[i].Key)
		}
		seen[ops[i].Key] = struct{}{}
	}
	return nil
}

func duplicateKey(key string) error {
	return fmt.Errorf("%w: %q occurs in two ops of one commit", ErrInvalid, key)
}

// Check returns an error that wraps ErrInvalid if no store could answer the options. It is for
// implementations.
func (o ListOptions) Check() error {
	switch {
	case o.Limit < 0:
		return fmt.Errorf("%w: limit %d is negative", ErrInvalid, o.Limit)
	case o.Revision < 0:
		return fmt.Errorf("%w: revision %d is negative", ErrInvalid, o.Revision)
	}
	return nil
}

// PrefixEnd returns the lowest string that is greater than every string with the prefix, and
// false if there is none.
func PrefixEnd(prefix string) (string, bool) {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return prefix[:i] + string([]byte{prefix[i] + 1}), true
		}
	}
	return "", false
}
