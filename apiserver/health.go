package apiserver

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/keelson/keelson/apiserver/internal/httpapi"
)

// storeTimeout is how long the store may take to answer a health check.
const storeTimeout = 2 * time.Second

func (s *Server) checks() []httpapi.Check {
	return []httpapi.Check{
		{Name: "store", Check: func(r *http.Request) error {
			ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
			defer cancel()
			_, _, err := s.store.Revision(ctx)
			return err
		}},
		{Name: "cache", ReadyOnly: true, Check: func(*http.Request) error { return s.core.Ready() }},
		{Name: "bootstrap", ReadyOnly: true, Check: func(*http.Request) error {
			select {
			case <-s.ready:
				return nil
			default:
				return errors.New("not finished")
			}
		}},
	}
}

// extraPaths are those by which others verify service-account tokens.
func (s *Server) extraPaths() map[string]http.Handler {
	return map[string]http.Handler{
		"/openid/v1/jwks": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/jwk-set+json")
			w.Header().Set("Cache-Control", "public, max-age=3600")
			_, _ = w.Write(s.tokens.Keys())
		}),
		"/.well-known/openid-configuration": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			base := s.URL()
			if base == "" {
				base = "https://" + r.Host
			}
			doc, err := s.tokens.Discovery(base)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "public, max-age=3600")
			_, _ = w.Write(doc)
		}),
	}
}
