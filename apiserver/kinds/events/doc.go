// Package events declares group events.k8s.io: v1 of the Events that are stored as core/v1.
//
// Both groups serve the same objects. Version is the declaration that the kind of core/v1 carries; Group
// registers the group's types and its version, so that discovery has it.
package events
