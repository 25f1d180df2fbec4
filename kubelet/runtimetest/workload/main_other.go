//go:build !linux

package main

import "fmt"

func tty() { fmt.Println("not a tty") }

func unshare() { fmt.Println("needs Linux") }
