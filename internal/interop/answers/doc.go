// Package answers holds the recorded answers of apiserver/apiservertest against an unmodified kube-apiserver:
//
//	go test ./answers            # they are still what it answers
//	go test ./answers -record    # writes them anew, after requests were added
//
// It compares what bootstrap roles allow, too.
package answers
