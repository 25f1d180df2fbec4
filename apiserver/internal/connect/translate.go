package connect

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	remotecommandconsts "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/client-go/tools/remotecommand"
	spdyclient "k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// streams are those that the client asked for.
type streams struct{ stdin, stdout, stderr, tty bool }

func streamsOf(q url.Values) streams {
	return streams{stdin: isTrue(q, "stdin"), stdout: isTrue(q, "stdout"), stderr: isTrue(q, "stderr"), tty: isTrue(q, "tty")}
}

// Channels of a remote command's WebSocket.
const (
	channelStdin = iota
	channelStdout
	channelStderr
	channelError
	channelResize
	channels
)

// translate runs a command over SPDY for a client that speaks v5.channel.k8s.io.
func (c *Connector) translate(w http.ResponseWriter, r *http.Request, u *url.URL, s streams) error {
	rt, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{
		TLS:        c.opts.KubeletTLS,
		Proxier:    func(*http.Request) (*url.URL, error) { return nil, nil },
		PingPeriod: 5 * time.Second,
	})
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	executor, err := remotecommand.NewSPDYExecutorForTransports(rt, spdyclient.NewUpgraderForStreaming(rt), http.MethodPost, u)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	mode := func(on bool, m wsstream.ChannelType) wsstream.ChannelType {
		if on {
			return m
		}
		return wsstream.IgnoreChannel
	}
	types := make([]wsstream.ChannelType, channels)
	types[channelStdin] = mode(s.stdin, wsstream.ReadChannel)
	types[channelStdout] = mode(s.stdout, wsstream.WriteChannel)
	types[channelStderr] = mode(s.stderr, wsstream.WriteChannel)
	types[channelError] = wsstream.WriteChannel
	types[channelResize] = wsstream.ReadChannel
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
		remotecommandconsts.StreamProtocolV5Name: {Binary: true, Channels: types},
	})
	// The protocol of the WebSocket is checked by its handshake, which answers the client itself.
	// The library logs a client that hangs up as an error, which it is not.
	_, ch, err := conn.Open(hijackable{w}, r.WithContext(logr.NewContext(r.Context(), logr.Discard())))
	if err != nil {
		c.opts.Logger.V(1).Info("WebSocket handshake failed", "err", err.Error())
		return nil
	}
	defer conn.Close()
	// The empty message tells the client that it is connected.
	switch {
	case s.stdout:
		_, _ = ch[channelStdout].Write(nil)
	case s.stderr:
		_, _ = ch[channelStderr].Write(nil)
	default:
		_, _ = ch[channelError].Write(nil)
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	opts := remotecommand.StreamOptions{Tty: s.tty}
	if s.stdin {
		opts.Stdin = ch[channelStdin]
	}
	if s.stdout {
		opts.Stdout = ch[channelStdout]
	}
	if s.stderr && !s.tty {
		opts.Stderr = ch[channelStderr]
	}
	resized := make(chan struct{})
	if s.tty {
		sizes := &sizeQueue{next: make(chan remotecommand.TerminalSize), done: ctx.Done()}
		opts.TerminalSizeQueue = sizes
		go func() {
			defer close(resized)
			sizes.read(ch[channelResize])
		}()
	} else {
		close(resized)
	}
	err = executor.StreamWithContext(ctx, opts)
	writeStatus(ch[channelError], err)
	cancel()
	conn.Close()
	<-resized
	return nil
}

// sizeQueue passes on the sizes of the client's terminal.
type sizeQueue struct {
	next chan remotecommand.TerminalSize
	done <-chan struct{}
}

// Next implements remotecommand.TerminalSizeQueue.
func (q *sizeQueue) Next() *remotecommand.TerminalSize {
	select {
	case s, ok := <-q.next:
		if ok {
			return &s
		}
	case <-q.done:
	}
	return nil
}

func (q *sizeQueue) read(r io.Reader) {
	defer close(q.next)
	d := json.NewDecoder(r)
	for {
		var s remotecommand.TerminalSize
		if d.Decode(&s) != nil {
			return
		}
		select {
		case q.next <- s:
		case <-q.done:
			return
		}
	}
}

// writeStatus tells how a command ended, in the form of remote command's protocols from v4 on.
func writeStatus(w io.Writer, err error) {
	status := metav1.Status{Status: metav1.StatusSuccess}
	var code exec.CodeExitError
	var api apierrors.APIStatus
	switch {
	case err == nil:
	case errors.As(err, &code):
		status = metav1.Status{
			Status: metav1.StatusFailure, Reason: remotecommandconsts.NonZeroExitCodeReason,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{
				{Type: remotecommandconsts.ExitCodeCauseType, Message: strconv.Itoa(code.Code)},
			}},
			Message: fmt.Sprintf("command terminated with non-zero exit code: %v", code.Err),
		}
	case errors.As(err, &api):
		status = api.Status()
	default:
		status = apierrors.NewInternalError(err).Status()
	}
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: corev1.SchemeGroupVersion.String()}
	if b, err := json.Marshal(status); err == nil {
		_, _ = w.Write(b) // the client may be gone
	}
}
