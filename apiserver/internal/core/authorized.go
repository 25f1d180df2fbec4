package core

import "context"

type authorizedKey struct{}

// authorized is a decision already made.
type authorized struct {
	target Target
	verb   string
}

// Authorize decides on a request before its body is read. With the context it returns the same question is not asked again; any
// other still is, such as whether an update may create.
func (c *Core) Authorize(ctx context.Context, t Target, verb string) (context.Context, error) {
	if err := c.authorize(ctx, t, verb, nil); err != nil {
		return ctx, err
	}
	return context.WithValue(ctx, authorizedKey{}, authorized{t, verb}), nil
}

func isAuthorized(ctx context.Context, t Target, verb string) bool {
	a, ok := ctx.Value(authorizedKey{}).(authorized)
	return ok && a.target == t && a.verb == verb
}
