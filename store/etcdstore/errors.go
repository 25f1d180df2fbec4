package etcdstore

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/keelson/keelson/store"
)

// readError translates the error of a call that changes nothing.
func (s *Store) readError(ctx context.Context, err error, what string) error {
	switch {
	case errors.Is(err, rpctypes.ErrCompacted), errors.Is(err, rpctypes.ErrGRPCCompacted):
		return fmt.Errorf("%w: %s", store.ErrCompacted, what)
	case errors.Is(err, rpctypes.ErrFutureRev), errors.Is(err, rpctypes.ErrGRPCFutureRev):
		return fmt.Errorf("%w: %s", store.ErrFutureRevision, what)
	case ctx.Err() != nil:
		return ctx.Err()
	case s.isClosed():
		return store.ErrClosed
	}
	return fmt.Errorf("etcdstore: %s: %w", what, err)
}

// commitError translates the error of a transaction.
func (s *Store) commitError(ctx context.Context, err error) error {
	if errors.Is(err, rpctypes.ErrTooManyOps) || errors.Is(err, rpctypes.ErrRequestTooLarge) || tooLargeToSend(err) {
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	if refused(err) {
		return fmt.Errorf("etcdstore: commit: %w", err)
	}
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", store.ErrUnknownOutcome, ctx.Err())
	case s.isClosed():
		return fmt.Errorf("%w: %w", store.ErrUnknownOutcome, store.ErrClosed)
	}
	return fmt.Errorf("%w: etcdstore: commit: %w", store.ErrUnknownOutcome, err)
}

// refused reports whether etcd has certainly not applied what it answers with err. What is not
// known to be so counts as unknown; "database space exceeded" is, because etcd also says it of
// what it has applied.
func refused(err error) bool {
	code := codes.Unknown
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		code = e.Code()
	} else if st, ok := status.FromError(err); ok {
		code = st.Code()
	}
	switch code {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.FailedPrecondition, codes.Unimplemented:
		return true
	}
	return errors.Is(err, rpctypes.ErrTooManyRequests)
}

// tooLargeToSend reports that gRPC has not sent the request because of its size.
func tooLargeToSend(err error) bool {
	st, ok := status.FromError(err)
	return ok && st.Code() == codes.ResourceExhausted && st.Message() != "" && st.Message()[0] == 't' &&
		len(st.Message()) > 14 && st.Message()[:14] == "trying to send"
}
