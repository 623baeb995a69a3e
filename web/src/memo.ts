// Leaves out rendering while no property changes.

import { type ComponentType, createElement, Component } from "preact";

export function memo<P extends object>(inner: ComponentType<P>): ComponentType<P> {
  return class extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      const keys = Object.keys({ ...this.props, ...next }) as (keyof P)[];
      return keys.some((key) => this.props[key] !== next[key]);
    }
    override render() {
      return createElement(inner, this.props as P);
    }
  } as ComponentType<P>;
}
