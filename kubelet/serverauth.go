package kubelet

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// guard lets authenticated clients do what they are authorized to.
func (k *Kubelet) guard(next http.Handler) http.Handler {
	tokens := &reviewCache[user.Info]{clock: k.clock, entries: map[string]reviewed[user.Info]{}}
	auth := k.opts.Authorizer
	if auth == nil {
		auth = &reviewAuthorizer{client: k.client, cache: &reviewCache[bool]{clock: k.clock, entries: map[string]reviewed[bool]{}}}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := k.authenticate(r, tokens)
		if err != nil {
			k.log.V(1).Info("Authenticating a client", "error", err.Error())
		}
		if who == nil {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		var last authorizer.AttributesRecord
		for _, a := range k.attributes(r, who) {
			decision, _, err := auth.Authorize(r.Context(), a)
			if err != nil {
				http.Error(w, fmt.Sprintf("Authorization error (user=%s, verb=%s, resource=%s, subresource=%s)", who.GetName(), a.Verb, a.Resource, a.Subresource), http.StatusInternalServerError)
				return
			}
			if decision == authorizer.DecisionAllow {
				next.ServeHTTP(w, r)
				return
			}
			last = a
		}
		http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=%s, subresource(s)=[%s])", who.GetName(), last.Verb, last.Resource, last.Subresource), http.StatusForbidden)
	})
}

func (k *Kubelet) authenticate(r *http.Request, tokens *reviewCache[user.Info]) (user.Info, error) {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		cert := r.TLS.VerifiedChains[0][0]
		return &user.DefaultInfo{Name: cert.Subject.CommonName, Groups: append(slices.Clone(cert.Subject.Organization), user.AllAuthenticated)}, nil
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "bearer") || token == "" {
		return nil, nil
	}
	return tokens.get(token, func() (user.Info, time.Duration, error) {
		review := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}}
		if err := k.client.Create(r.Context(), review); err != nil {
			return nil, 0, err
		}
		if !review.Status.Authenticated {
			return nil, 10 * time.Second, nil
		}
		u := review.Status.User
		extra := map[string][]string{}
		for key, v := range u.Extra {
			extra[key] = v
		}
		return &user.DefaultInfo{Name: u.Username, UID: u.UID, Groups: u.Groups, Extra: extra}, 2 * time.Minute, nil
	})
}

// attributes are what a request asks for, as rights on the node: any of them will do.
func (k *Kubelet) attributes(r *http.Request, who user.Info) []authorizer.AttributesRecord {
	verb := map[string]string{http.MethodPost: "create", http.MethodGet: "get", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}[r.Method]
	under := func(p string) bool { return r.URL.Path == p || strings.HasPrefix(r.URL.Path, p+"/") }
	subresources := []string{"proxy"}
	switch {
	case under("/stats"):
		subresources = []string{"stats"}
	case under("/metrics"):
		subresources = []string{"metrics"}
	case under("/logs"):
		subresources = []string{"log"}
	case under("/pods"), under("/runningpods"):
		subresources = []string{"pods", "proxy"}
	case under("/healthz"):
		subresources = []string{"healthz", "proxy"}
	}
	var out []authorizer.AttributesRecord
	for _, s := range subresources {
		out = append(out, authorizer.AttributesRecord{User: who, Verb: verb, APIVersion: "v1", Resource: "nodes", Subresource: s, Name: k.opts.NodeName, ResourceRequest: true, Path: r.URL.Path})
	}
	return out
}

// reviewAuthorizer asks the API by SubjectAccessReviews.
type reviewAuthorizer struct {
	client client.Client
	cache  *reviewCache[bool]
}

// Authorize implements authorizer.Authorizer.
func (a *reviewAuthorizer) Authorize(ctx context.Context, attr authorizer.Attributes) (authorizer.Decision, string, error) {
	who := attr.GetUser()
	if slices.Contains(who.GetGroups(), user.SystemPrivilegedGroup) {
		return authorizer.DecisionAllow, "", nil
	}
	key := fmt.Sprintf("%q %q %q %q %q", who.GetName(), who.GetUID(), who.GetGroups(), attr.GetVerb(), attr.GetSubresource())
	ok, err := a.cache.get(key, func() (bool, time.Duration, error) {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: who.GetName(), UID: who.GetUID(), Groups: who.GetGroups(),
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: attr.GetVerb(), Version: "v1", Resource: attr.GetResource(), Subresource: attr.GetSubresource(), Name: attr.GetName()},
		}}
		if len(who.GetExtra()) > 0 {
			review.Spec.Extra = map[string]authorizationv1.ExtraValue{}
			for k, v := range who.GetExtra() {
				review.Spec.Extra[k] = v
			}
		}
		if err := a.client.Create(ctx, review); err != nil {
			return false, 0, err
		}
		if review.Status.Allowed {
			return true, 5 * time.Minute, nil
		}
		return false, 30 * time.Second, nil
	})
	if err != nil {
		return authorizer.DecisionDeny, "", err
	}
	if ok {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// reviewCache keeps answers for a while.
type reviewCache[T any] struct {
	clock   clock.PassiveClock
	mu      sync.Mutex
	entries map[string]reviewed[T]
}

type reviewed[T any] struct {
	value T
	until time.Time
}

const reviewCacheLimit = 1024

func (c *reviewCache[T]) get(key string, ask func() (T, time.Duration, error)) (T, error) {
	c.mu.Lock()
	e, ok := c.entries[key]
	c.mu.Unlock()
	if ok && c.clock.Now().Before(e.until) {
		return e.value, nil
	}
	v, keep, err := ask()
	if err != nil {
		return v, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.entries) >= reviewCacheLimit {
		clear(c.entries)
	}
	c.entries[key] = reviewed[T]{v, c.clock.Now().Add(keep)}
	return v, nil
}
