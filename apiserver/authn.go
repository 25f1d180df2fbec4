package apiserver

import (
	"context"
	"crypto/sha256"
	"errors"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/keelson/keelson/apiserver/auth/x509"
)

// staticTokens authenticates by Options.Tokens. Keeping digests makes the time of a look-up tell nothing of the tokens.
type staticTokens map[[sha256.Size]byte]user.Info

func newStaticTokens(tokens map[string]user.Info) staticTokens {
	m := staticTokens{}
	for t, u := range tokens {
		m[sha256.Sum256([]byte(t))] = u
	}
	return m
}

// AuthenticateToken implements authenticator.Token.
func (m staticTokens) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	u, ok := m[sha256.Sum256([]byte(token))]
	if !ok {
		return nil, false, nil
	}
	auds, _ := authenticator.AudiencesFrom(ctx)
	return &authenticator.Response{User: u, Audiences: auds}, true, nil
}

// tokenUnion asks one after the other.
type tokenUnion []authenticator.Token

// AuthenticateToken implements authenticator.Token.
func (l tokenUnion) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	var errs []error
	for _, a := range l {
		resp, ok, err := a.AuthenticateToken(ctx, token)
		if ok {
			return resp, true, nil
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return nil, false, errors.Join(errs...)
}

// authenticators of requests: certificates first, then tokens in the header or, from browsers, in a WebSocket's protocols.
func (s *Server) authenticators() (authenticator.Request, error) {
	certs, err := x509.New(s.ca.Pool(), x509.Options{Clock: s.opts.Clock})
	if err != nil {
		return nil, err
	}
	all := []authenticator.Request{certs, bearertoken.New(s.tokenAuthenticator), websocket.NewProtocolAuthenticator(s.tokenAuthenticator)}
	if s.opts.Authenticator != nil {
		all = append([]authenticator.Request{s.opts.Authenticator}, all...)
	}
	return union.New(all...), nil
}

// privileged lets members of system:masters do everything before another authorizer is asked, so that no policy can lock the cluster's owner out.
type privileged struct {
	next authorizer.UnconditionalAuthorizer
}

var _ authorizer.Authorizer = privileged{}

// Authorize implements authorizer.Authorizer.
func (p privileged) Authorize(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if u := a.GetUser(); u != nil {
		for _, g := range u.GetGroups() {
			if g == user.SystemPrivilegedGroup {
				return authorizer.DecisionAllow, "", nil
			}
		}
	}
	return p.next.Authorize(ctx, a)
}

// ConditionsAwareAuthorize implements authorizer.Authorizer; decisions carry no conditions.
func (p privileged) ConditionsAwareAuthorize(ctx context.Context, a authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(p.Authorize(ctx, a))
}

// EvaluateConditions implements authorizer.Authorizer by refusing: there are no conditions.
func (privileged) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}
